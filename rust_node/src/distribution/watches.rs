//! Monitors, both ways, and calls that wait for an answer.
//!
//! Guarantee: each monitor set here ends once, with the process, with the connection, or by being taken back; each waiting call is
//! answered once. A peer can answer only what was asked of it.

use std::sync::Arc;

use erl_dist::message::Message;
use erl_dist::term::PidOrAtom;
use etf::{Atom, Checked, Pid, Reference, Term};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::control::Process;
use super::frame;
use super::mailbox::{Inbound, Mailbox, MonitorRef};
use super::node::{Node, State, halves};
use super::peers::SendError;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) peer: Arc<str>,
    answer: oneshot::Sender<Answer>,
}

/// How a call is answered.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Checked<'static>),
    Down(String),
}

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) peer: Arc<str>,
    target: Process,
    pub(super) by: Watcher,
}

#[derive(Debug)]
pub(super) enum Watcher {
    Call(u32),
    Process(mpsc::UnboundedSender<Inbound>),
}

impl Node {
    /// Monitors a process of another node for a process of this one. When the node is not connected, `Down` comes at once.
    pub fn monitor(&self, by: &Mailbox, peer: &str, target: Process) -> MonitorRef {
        let number = self.new_number();
        let mut state = self.lock();
        if let Some(mailbox) = state.processes.get(&by.name).map(|process| process.mailbox.clone()) {
            self.watch(&mut state, number, peer, by.pid.clone(), target, Watcher::Process(mailbox));
        }
        MonitorRef(number)
    }

    /// Takes a monitor back. A `Down` that is in the mailbox already stays there.
    pub fn demonitor(&self, by: &Mailbox, monitor: MonitorRef) {
        self.unwatch(&by.pid, monitor.0);
    }

    /// A monitor a peer holds. False when it holds too many.
    pub(super) fn watched(&self, peer: &str, reference: Reference, from: Pid, to: Process) -> bool {
        let limit = self.options().limits.monitors;
        let mut state = self.lock();
        match state.peers.get_mut(peer) {
            Some(link) if link.monitors.len() < limit => {
                link.monitors.insert(reference.id.clone(), (reference, from, to));
                true
            }
            _ => false,
        }
    }

    pub(super) fn unwatched(&self, peer: &str, reference: &Reference) {
        if let Some(link) = self.lock().peers.get_mut(peer) {
            link.monitors.remove(&reference.id);
        }
    }

    /// An answer to a call, if `to` waits for one. False otherwise.
    pub(super) fn answered(&self, peer: &str, to: &Pid, payload: &Checked<'_>) -> bool {
        let mut state = self.lock();
        let waits = to.serial == 0 && state.waiters.get(&to.id).is_some_and(|waiter| *waiter.peer == *peer);
        if waits {
            state.answer(to.id, Answer::Reply(payload.clone().into_owned()));
        }
        waits
    }

    /// A monitored process ended.
    pub(super) fn ended(&self, peer: &str, reference: &Reference, reason: Option<String>) {
        let Some(number) = Node::number_of(reference) else {
            return;
        };
        let mut state = self.lock();
        if state.watches.get(&number).is_some_and(|watch| *watch.peer == *peer) {
            state.down(number, reason);
        }
    }

    /// Waits for a call's answer from `peer`, with a monitor on the callee set first.
    pub(super) fn wait(&self, peer: &str, target: Process) -> Option<(Pid, u64, oneshot::Receiver<Answer>)> {
        let (answer, receiver) = oneshot::channel();
        let number = self.new_number();
        // Calls use pids whose serial is 0: more than four billion numbers later they are still unlike each other in time.
        let call = halves(self.new_number())[0];
        let pid = Pid { serial: 0, id: call, ..self.new_pid() };
        let mut state = self.lock();
        let name = state.peers.get_key_value(peer).map(|(name, _)| Arc::clone(name))?;
        state.waiters.insert(call, Waiter { peer: name, answer });
        self.watch(&mut state, number, peer, pid.clone(), target, Watcher::Call(call));
        Some((pid, number, receiver))
    }

    /// Stops waiting.
    pub(super) fn stop_waiting(&self, pid: &Pid, number: u64) {
        self.lock().waiters.remove(&pid.id);
        self.unwatch(pid, number);
    }

    fn watch(&self, state: &mut State, number: u64, peer: &str, from: Pid, target: Process, by: Watcher) {
        let watch = Watch { peer: peer.into(), target: target.clone(), by };
        state.watches.insert(number, watch);
        let to = match target {
            Process::Pid(pid) => PidOrAtom::Pid(pid),
            Process::Name(name) => PidOrAtom::Atom(Atom::from(name)),
        };
        let message = Message::monitor_p(from, to, self.new_reference(number));
        let sent = frame::build(|out| message.write_into(out))
            .map_err(|_| SendError::Encode)
            .and_then(|frame| self.push_frame(state, peer, frame));
        if let Err(error) = sent {
            debug!(peer, %error, "monitor of a node that is not there");
            state.down(number, Some("noconnection".to_owned()));
        }
    }

    pub(super) fn unwatch(&self, by: &Pid, number: u64) {
        let Some(watch) = self.lock().watches.remove(&number) else {
            return;
        };
        let target = match watch.target {
            Process::Pid(pid) => PidOrAtom::Pid(pid),
            Process::Name(name) => PidOrAtom::Atom(Atom::from(name)),
        };
        let _gone = self.push(&watch.peer, Message::demonitor_p(by.clone(), target, self.new_reference(number)));
    }
}

impl State {
    pub(super) fn answer(&mut self, call: u32, answer: Answer) {
        if let Some(waiter) = self.waiters.remove(&call) {
            let _given_up = waiter.answer.send(answer);
        }
    }

    pub(super) fn down(&mut self, number: u64, reason: Option<String>) {
        let Some(watch) = self.watches.remove(&number) else {
            return;
        };
        match watch.by {
            Watcher::Call(call) => self.answer(call, Answer::Down(reason.unwrap_or_else(|| "unknown".to_owned()))),
            Watcher::Process(mailbox) => {
                let _closed = mailbox.send(Inbound::Down { peer: watch.peer, monitor: MonitorRef(number), reason });
            }
        }
    }
}

/// Tells the holder of a monitor that the process has ended.
pub(super) fn monitor_exit(process: Process, to: Pid, reference: Reference, reason: &str) -> Message {
    let process = match process {
        Process::Pid(pid) => PidOrAtom::Pid(pid),
        Process::Name(name) => PidOrAtom::Atom(Atom::from(name)),
    };
    Message::monitor_p_exit(process, to, reference, Term::from(Atom::from(reason)))
}
