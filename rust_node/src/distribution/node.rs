//! The node: a handle on its connections, registered processes, monitors and calls in flight.
//!
//! Guarantee: the lock is held for look-ups and queueing only, never across an await. When a connection or a
//! process ends, every affected call, monitor and mailbox is notified once.

mod connections;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use erl_dist::message::Message;
use etf::{Atom, Checked, Pid, Reference, Term};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::calls::{Answer, CallError, Request};
use super::control::Process;
use super::handshake::Local;
use super::limits::Limits;
use super::names::AllowList;
use super::numbers::{Numbers, number_of};
use super::peers::Monitor;
use super::processes::{Inbound, MonitorRef};
use super::queue::SendError;
use super::repeats::Repeats;
use super::state::{State, monitor_exit, written};
use super::tls::Tls;
use super::troubles::Troubles;
use super::watches::{Watch, Watcher};
use crate::metrics::Metrics;

/// The kinds of handshakes that are counted from 0: those that succeed, and the one with an alert.
const HANDSHAKES: [&str; 3] = ["accepted", "dialled", "cookie"];

#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Name, creation number, cookie.
    pub local: Local,
    pub limits: Limits,
    pub allow: AllowList,
    pub tls: Option<Tls>,
    pub epmd_port: u16,
    /// The port of every node without a port of its own. Without this value EPMD is asked.
    pub dist_port: Option<u16>,
    pub dns_server: Option<SocketAddr>,
    pub metrics: Metrics,
}

impl NodeOptions {
    /// For a node without TLS that accepts every peer and asks EPMD on its usual port.
    pub fn new(local: Local, limits: Limits) -> Self {
        NodeOptions {
            local,
            limits,
            allow: AllowList::default(),
            tls: None,
            epmd_port: 4_369,
            dist_port: None,
            dns_server: None,
            metrics: Metrics::default(),
        }
    }
}

/// A handle on the node; clones are the same node.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: NodeOptions,
    numbers: Numbers,
    state: Mutex<State>,
    troubles: Troubles,
    repeats: Mutex<Repeats>,
    stopped: CancellationToken,
}

/// A registered process: its pid and its mailbox. Dropping it ends the process.
#[derive(Debug)]
pub struct Mailbox {
    pub pid: Pid,
    name: String,
    node: Node,
    receiver: UnboundedReceiver<Inbound>,
}

impl Mailbox {
    /// The next message or event; `None` when the node has stopped.
    pub async fn receive(&mut self) -> Option<Inbound> {
        self.receiver.recv().await
    }

    /// The next message or event, if the mailbox has one.
    pub fn try_receive(&mut self) -> Option<Inbound> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.node.unregister(&self.name, &self.pid);
    }
}

impl Node {
    pub fn new(options: NodeOptions) -> Self {
        Metrics::create(&options.metrics.handshakes, HANDSHAKES);
        Node(Arc::new(Inner {
            numbers: Numbers::new(&options.local),
            state: Mutex::new(State::new(options.metrics.clone())),
            troubles: Troubles::default(),
            repeats: Mutex::default(),
            stopped: CancellationToken::new(),
            options,
        }))
    }

    pub fn name(&self) -> String {
        self.0.options.local.name.to_string()
    }

    pub fn options(&self) -> &NodeOptions {
        &self.0.options
    }

    /// A token that is cancelled when the node stops, which ends the tasks of the node.
    pub fn stopped(&self) -> &CancellationToken {
        &self.0.stopped
    }

    /// Registers a process. `None` when the name is taken.
    pub fn register(&self, name: &str) -> Option<Mailbox> {
        let pid = self.new_pid();
        let mut state = self.lock();
        let receiver = state.processes.register(name, pid.clone())?;
        if let Some(mailbox) = state.processes.mailbox(&Process::Name(name.to_owned())) {
            for (peer, hidden) in state.peers.iter() {
                let _closed = mailbox.send(Inbound::PeerUp { peer: Arc::clone(peer), hidden });
            }
        }
        Some(Mailbox { pid, name: name.to_owned(), node: self.clone(), receiver })
    }

    fn unregister(&self, name: &str, pid: &Pid) {
        let is_it = |process: &Process| match process {
            Process::Pid(other) => other == pid,
            Process::Name(other) => other == name,
        };
        let mut state = self.lock();
        let gone = state.processes.unregister(name, pid);
        let set_by_it = gone.map(|mailbox| state.watches.all_by(&mailbox)).unwrap_or_default();
        let held_on_it = state.peers.take_monitors(is_it);
        drop(state);
        for number in set_by_it {
            self.unwatch(pid, number);
        }
        for (peer, monitor) in held_on_it {
            let _gone = self.push(&peer, monitor_exit(monitor, "normal"));
        }
    }

    /// Sends a term to a process of a connected node.
    pub fn send(&self, peer: &str, from: &Pid, to: &Process, message: Term) -> Result<(), SendError> {
        self.push(
            peer,
            match to {
                Process::Pid(pid) => Message::send(pid.clone(), message),
                Process::Name(name) => Message::reg_send(from.clone(), Atom::from(name.as_str()), message),
            },
        )
    }

    /// Calls a registered process of a connected node. The monitor on it is set before the request is sent.
    pub async fn call(&self, peer: &str, process: &str, body: Term, timeout: Duration) -> Result<Term, CallError> {
        let target = Process::Name(process.to_owned());
        let (own, number) = (self.0.numbers.new_call_pid(), self.new_number());
        let answer = self.begin_call(peer, &own, number, target.clone()).ok_or(CallError::NotConnected)?;
        // Dropping this value ends the call, also when the future is dropped.
        let _waiting = Waiting { node: self, pid: &own, number };
        let tag = Term::from(self.0.numbers.reference(number));
        self.send(peer, &own, &target, Request::write(&own, tag.clone(), body))?;
        match tokio::time::timeout(timeout, answer).await {
            Err(_) => Err(CallError::Timeout),
            Ok(Err(_)) => Err(CallError::Down { reason: "the node has stopped".to_owned() }),
            Ok(Ok(Answer::Down(reason))) => Err(CallError::Down { reason }),
            Ok(Ok(Answer::Reply(payload))) => match payload.decode() {
                Ok(Term::Tuple(mut reply)) if reply.elements.len() == 2 && reply.elements[0] == tag => {
                    reply.elements.pop().ok_or(CallError::Shape)
                }
                _ => Err(CallError::Shape),
            },
        }
    }

    fn begin_call(&self, peer: &str, own: &Pid, number: u64, target: Process) -> Option<oneshot::Receiver<Answer>> {
        let mut state = self.lock();
        let peer = state.peers.name(peer)?;
        let answer = state.calls.begin(own.id, Arc::clone(&peer));
        let watch = Watch { peer, target, by: Watcher::Call(own.id) };
        state.watch(number, watch, own.clone(), self.0.numbers.reference(number));
        Some(answer)
    }

    /// Answers a call.
    pub fn reply(&self, peer: &str, own: &Pid, request: Request, answer: Term) -> Result<(), SendError> {
        self.push(peer, request.reply(own, answer))
    }

    /// Monitors a process of another node for a process of this one. When the node is not connected, `Down`
    /// arrives at once.
    pub fn monitor(&self, by: &Mailbox, peer: &str, target: Process) -> MonitorRef {
        let number = self.new_number();
        let mut state = self.lock();
        if let Some(mailbox) = state.processes.mailbox(&Process::Name(by.name.clone())).cloned() {
            let watch = Watch { peer: peer.into(), target, by: Watcher::Process(mailbox) };
            state.watch(number, watch, by.pid.clone(), self.0.numbers.reference(number));
        }
        MonitorRef(number)
    }

    /// Removes a monitor. A `Down` that is in the mailbox already stays there.
    pub fn demonitor(&self, by: &Mailbox, monitor: MonitorRef) {
        self.unwatch(&by.pid, monitor.0);
    }

    fn unwatch(&self, by: &Pid, number: u64) {
        let Some(watch) = self.lock().watches.remove(number) else {
            return;
        };
        let reference = self.0.numbers.reference(number);
        let _gone = self.push(&watch.peer, Message::demonitor_p(by.clone(), watch.target.into(), reference));
    }

    /// The nodes that should be connected or tried to connect, and are not, each with the cause.
    pub fn troubles(&self) -> &Troubles {
        &self.0.troubles
    }

    /// Whether to log an error of a peer. If so, returns how often it was repeated since the last log line.
    pub fn note_mistake(&self, peer: &str, kind: &'static str) -> Option<u64> {
        self.0.repeats.lock().unwrap_or_else(PoisonError::into_inner).note(peer, kind)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock. If it did, the state would still be consistent enough.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new unique number. The numbers of connections order them: see [`Node::attach`].
    pub(super) fn new_number(&self) -> u64 {
        self.0.numbers.draw()
    }

    pub(super) fn new_pid(&self) -> Pid {
        self.0.numbers.new_pid()
    }

    pub(super) fn push(&self, peer: &str, message: Message) -> Result<(), SendError> {
        let frame = written(message)?;
        self.lock().peers.push(peer, frame)
    }

    /// Puts a message of a peer into a mailbox. Returns false when the process does not exist, or the
    /// connection is not the current one.
    pub(super) fn deliver(&self, peer: &str, id: u64, to: &Process, make: impl FnOnce() -> Inbound) -> bool {
        let state = self.lock();
        state.peers.id(peer) == Some(id)
            && state.processes.mailbox(to).is_some_and(|mailbox| mailbox.send(make()).is_ok())
    }

    /// Whether a process of that name or pid exists here. `net_kernel` counts as one.
    pub(super) fn is_alive(&self, process: &Process) -> bool {
        matches!(process, Process::Name(name) if name == "net_kernel")
            || self.lock().processes.mailbox(process).is_some()
    }

    /// Adds a monitor that a peer has set. Returns false when the peer holds too many.
    pub(super) fn hold_monitor(&self, peer: &str, monitor: Monitor) -> bool {
        self.lock().peers.add_monitor(peer, self.options().limits.monitors, monitor)
    }

    pub(super) fn release_monitor(&self, peer: &str, reference: &Reference) {
        self.lock().peers.remove_monitor(peer, reference);
    }

    /// Answers the call that waits at `to`. Returns false when no call waits there.
    pub(super) fn answer_call(&self, peer: &str, to: &Pid, payload: &Checked<'_>) -> bool {
        let mut state = self.lock();
        let expected = state.calls.expects(peer, to);
        if expected {
            state.calls.answer(to.id, Answer::Reply(payload.clone().into_owned()));
        }
        expected
    }

    /// Ends a monitor of this node, because the peer reports that the process has ended.
    pub(super) fn end_watch(&self, peer: &str, reference: &Reference, reason: Option<String>) {
        let mut state = self.lock();
        if let Some(number) = number_of(reference).filter(|number| state.watches.is_at(*number, peer)) {
            state.end_watch(number, reason);
        }
    }
}

/// A call in flight. Dropping it removes the monitor.
struct Waiting<'a> {
    node: &'a Node,
    pid: &'a Pid,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.node.lock().calls.remove(self.pid.id);
        self.node.unwatch(self.pid, self.number);
    }
}

#[cfg(test)]
mod tests;
