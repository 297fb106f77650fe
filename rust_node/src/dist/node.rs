//! The node: who is connected, registered, watched and waited for.
//!
//! Guarantee: the lock is held for look-ups and queueing only, never across an await. Whatever ends, a connection or a
//! process, leaves no waiter and no monitor behind.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use eetf::{Atom, Pid, Reference, Term};
use erl_dist::message::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::connection::Queue;
use super::control::Process;
use super::frame;
use super::handshake::{Local, Peer};
use super::limits::Limits;
use super::mailbox::{Inbound, Mailbox};
use super::names::AllowList;
use super::tls::Tls;
use super::watches::{Answer, Waiter, Watch, Watcher, monitor_exit};
use crate::metrics::Metrics;

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Name, incarnation, cookie.
    pub local: Local,
    /// Its bounds.
    pub limits: Limits,
    /// Which peers it takes.
    pub allow: AllowList,
    /// TLS, for every connection or none.
    pub tls: Option<Tls>,
    /// The port mapper's port.
    pub epmd_port: u16,
    /// Its counters.
    pub metrics: Metrics,
}

/// A handle on the node; clones are the same node.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: NodeOptions,
    state: Mutex<State>,
    next: AtomicU64,
    stopped: CancellationToken,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) peers: BTreeMap<Arc<str>, Link>,
    /// Nodes being dialled by us.
    pub(super) dialling: HashSet<String>,
    pub(super) processes: HashMap<String, Registered>,
    /// Calls under way, by the pid the answer goes to.
    pub(super) waiters: HashMap<u32, Waiter>,
    /// Monitors set here, by the number in their reference.
    pub(super) watches: HashMap<u64, Watch>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) queue: Queue,
    /// Cancelled: end it. Also cancelled when it ended.
    pub(super) end: CancellationToken,
    hidden: bool,
    since: Instant,
    /// Monitors the peer holds on processes here.
    pub(super) monitors: HashMap<Vec<u32>, (Reference, Pid, Process)>,
}

#[derive(Debug)]
pub(super) struct Registered {
    pid: Pid,
    pub(super) mailbox: mpsc::UnboundedSender<Inbound>,
}

/// A connected node, for people.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PeerInfo {
    /// Its name.
    pub name: String,
    /// A hidden one.
    pub hidden: bool,
    /// For how long, seconds.
    pub connected_s: u64,
}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The node is not connected.
    #[error("not connected")]
    NotConnected,
    /// It did not read what was sent before; the connection is ended.
    #[error("the peer does not read")]
    Full,
    /// The term cannot be encoded.
    #[error("the term cannot be encoded")]
    Encode,
}

/// Why a finished handshake does not become a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotTaken {
    /// The peer has made another connection since.
    #[error("the peer has connected again since")]
    Outdated,
    /// There are as many connections as there may be.
    #[error("too many connections")]
    TooMany,
    /// The node stops.
    #[error("this node stops")]
    Stopped,
}

impl NotTaken {
    /// For the counter.
    pub(super) fn label(self) -> &'static str {
        match self {
            NotTaken::Outdated => "outdated",
            NotTaken::TooMany => "too_many_peers",
            NotTaken::Stopped => "stopped",
        }
    }
}

impl Node {
    /// A node that is not connected to anything yet.
    pub fn new(options: NodeOptions) -> Self {
        Node(Arc::new(Inner {
            options,
            state: Mutex::default(),
            // Pids and references count from here; 0 looks like a system process.
            next: AtomicU64::new(1),
            stopped: CancellationToken::new(),
        }))
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.0.options.local.name.to_string()
    }

    /// What it was made of.
    pub fn options(&self) -> &NodeOptions {
        &self.0.options
    }

    /// Cancelled when the node stops; tasks of the node end then.
    pub fn stopped(&self) -> &CancellationToken {
        &self.0.stopped
    }

    /// Waits until everything queued so far was handed to the sockets, at most that long.
    pub async fn flushed(&self, at_most: Duration) {
        let all_empty = async {
            while !self.lock().peers.values().all(|link| link.queue.is_empty()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _in_time = tokio::time::timeout(at_most, all_empty).await;
    }

    /// Ends every connection and task of the node at once.
    pub fn stop(&self) {
        self.give_up_peers().iter().for_each(CancellationToken::cancel);
    }

    /// Ends every connection and task of the node, connections in good order: what is queued goes out first, then the peer is
    /// read to the end. To close while something of the peer's is unread would have the operating system reset the
    /// connection, and the peer might lose what was sent last. At most that long, then as [`Node::stop`].
    pub async fn close(&self, at_most: Duration) {
        let ends = self.give_up_peers();
        let all_closed = async {
            for end in &ends {
                end.cancelled().await;
            }
        };
        let _in_time = tokio::time::timeout(at_most, all_closed).await;
        ends.iter().for_each(CancellationToken::cancel);
    }

    /// No peer is there any more, and none can come. What ends their connections.
    fn give_up_peers(&self) -> Vec<CancellationToken> {
        self.0.stopped.cancel();
        let mut state = self.lock();
        let peers: Vec<(Arc<str>, u64)> = state.peers.iter().map(|(name, link)| (Arc::clone(name), link.id)).collect();
        peers.iter().filter_map(|(peer, id)| self.forget(&mut state, peer, *id)).collect()
    }

    /// The connected nodes.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let state = self.lock();
        let info = |(name, link): (&Arc<str>, &Link)| PeerInfo {
            name: name.to_string(),
            hidden: link.hidden,
            connected_s: link.since.elapsed().as_secs(),
        };
        state.peers.iter().map(info).collect()
    }

    /// Registers a process. `None` when the name is taken.
    pub fn register(&self, name: &str) -> Option<Mailbox> {
        let (mailbox, receiver) = mpsc::unbounded_channel();
        let pid = self.new_pid();
        let mut state = self.lock();
        if state.processes.contains_key(name) {
            return None;
        }
        for (peer, link) in &state.peers {
            let _closed = mailbox.send(Inbound::PeerUp { peer: Arc::clone(peer), hidden: link.hidden });
        }
        state.processes.insert(name.to_owned(), Registered { pid: pid.clone(), mailbox });
        Some(Mailbox { pid, name: name.to_owned(), node: self.clone(), receiver })
    }

    /// Sends a term to a process of a connected node.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&self, peer: &str, from: &Pid, to: &Process, message: Term) -> Result<(), SendError> {
        self.push(
            peer,
            match to {
                Process::Pid(pid) => Message::send(pid.clone(), message),
                Process::Name(name) => Message::reg_send(from.clone(), Atom::from(name.as_str()), message),
            },
        )
    }

    /// Ends the connection to a node.
    pub fn disconnect(&self, peer: &str) {
        if let Some(link) = self.lock().peers.get(peer) {
            link.end.cancel();
        }
    }

    // What follows is for the other files of the layer.

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if something did, the state is still whole enough to go on with.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn own_atom(&self) -> Atom {
        Atom::from(self.name())
    }

    pub(super) fn new_pid(&self) -> Pid {
        let number = self.new_number();
        let [id, serial] = halves(number);
        Pid { node: self.own_atom(), id, serial, creation: self.0.options.local.creation }
    }

    pub(super) fn new_reference(&self, number: u64) -> Reference {
        let [low, high] = halves(number);
        // Nodes may take only 18 bits of the first word for granted.
        Reference {
            node: self.own_atom(),
            id: vec![low & 0x3_ffff, low, high],
            creation: self.0.options.local.creation,
        }
    }

    /// The number behind a reference made here.
    pub(super) fn number_of(reference: &Reference) -> Option<u64> {
        match reference.id[..] {
            [_, low, high] => Some(u64::from(high) << 32 | u64::from(low)),
            _ => None,
        }
    }

    /// Queues a message for a peer.
    pub(super) fn push(&self, peer: &str, message: Message) -> Result<(), SendError> {
        let frame = frame::build(|out| message.write_into(out)).map_err(|_| SendError::Encode)?;
        self.push_frame(&self.lock(), peer, frame)
    }

    pub(super) fn push_frame(&self, state: &State, peer: &str, frame: Vec<u8>) -> Result<(), SendError> {
        let link = state.peers.get(peer).filter(|link| !link.end.is_cancelled()).ok_or(SendError::NotConnected)?;
        link.queue.push(frame).inspect_err(|error| {
            if *error == SendError::Full {
                info!(peer, "does not read what it is sent, connection ended");
                Metrics::count(&self.0.options.metrics.dropped, "slow_reader");
                link.end.cancel();
            }
        })
    }

    /// Takes a finished handshake as the connection to that node, instead of one with a lower `id`. The peer goes by the
    /// connection it made last, and tasks of two handshakes may come here in either order: so the id of a connection that was
    /// accepted is drawn when it was, and that of one that was dialled when the peer has let it in.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(super) fn attach(&self, peer: &Peer, id: u64, queue: Queue) -> Result<(Arc<str>, CancellationToken), NotTaken> {
        let name: Arc<str> = peer.name.to_string().into();
        let mut state = self.lock();
        if let Some(other) = state.peers.get(&name).map(|link| link.id) {
            if other > id {
                return Err(NotTaken::Outdated);
            }
            info!(peer = %name, "connected anew, the earlier connection is ended");
            self.detach_locked(&mut state, &name, other);
        }
        if self.0.stopped.is_cancelled() {
            return Err(NotTaken::Stopped);
        }
        if state.peers.len() >= self.0.options.limits.peers {
            return Err(NotTaken::TooMany);
        }
        let (end, hidden) = (CancellationToken::new(), peer.is_hidden());
        let link = Link { id, queue, end: end.clone(), hidden, since: Instant::now(), monitors: HashMap::new() };
        state.peers.insert(Arc::clone(&name), link);
        self.0.options.metrics.connections.set(i64::try_from(state.peers.len()).unwrap_or(i64::MAX));
        state.tell_all(|| Inbound::PeerUp { peer: Arc::clone(&name), hidden });
        info!(peer = %name, hidden, "connected");
        Ok((name, end))
    }

    /// Ends a connection, if it is still the connection to that node: waiters and monitors learn of it.
    pub(super) fn detach(&self, peer: &str, id: u64) {
        self.detach_locked(&mut self.lock(), peer, id);
    }

    fn detach_locked(&self, state: &mut State, peer: &str, id: u64) {
        if let Some(end) = self.forget(state, peer, id) {
            end.cancel();
        }
    }

    /// Drops what is known of a connection, its queue with it: the writer ends when it has sent what is in there. What ends the
    /// connection itself.
    fn forget(&self, state: &mut State, peer: &str, id: u64) -> Option<CancellationToken> {
        if state.peers.get(peer).is_none_or(|link| link.id != id) {
            return None;
        }
        let (name, link) = state.peers.remove_entry(peer)?;
        self.0.options.metrics.connections.set(i64::try_from(state.peers.len()).unwrap_or(i64::MAX));
        let calls: Vec<u32> =
            state.waiters.iter().filter(|(_, waiter)| waiter.peer == name).map(|(call, _)| *call).collect();
        for call in calls {
            state.answer(call, Answer::Down("noconnection".to_owned()));
        }
        let watches: Vec<u64> =
            state.watches.iter().filter(|(_, watch)| watch.peer == name).map(|(number, _)| *number).collect();
        for number in watches {
            state.down(number, Some("noconnection".to_owned()));
        }
        state.tell_all(|| Inbound::PeerDown { peer: Arc::clone(&name) });
        info!(peer = %name, "disconnected");
        Some(link.end)
    }

    /// Puts a message of a peer into a mailbox. False when there is no such process, or the connection is not current.
    pub(super) fn deliver(&self, peer: &str, id: u64, to: &Process, make: impl FnOnce() -> Inbound) -> bool {
        let state = self.lock();
        if state.peers.get(peer).is_none_or(|link| link.id != id) {
            return false;
        }
        state.find(to).is_some_and(|process| process.mailbox.send(make()).is_ok())
    }

    /// Whether a process of that name or pid is here; `net_kernel` is.
    pub(super) fn is_alive(&self, process: &Process) -> bool {
        matches!(process, Process::Name(name) if name == "net_kernel") || self.lock().find(process).is_some()
    }

    pub(super) fn unregister(&self, name: &str, pid: &Pid) {
        let mut state = self.lock();
        let mut set_by_it = Vec::new();
        if state.processes.get(name).is_some_and(|process| process.pid == *pid)
            && let Some(gone) = state.processes.remove(name)
        {
            let by_it = |watch: &Watch| matches!(&watch.by, Watcher::Process(by) if by.same_channel(&gone.mailbox));
            set_by_it.extend(state.watches.iter().filter(|(_, watch)| by_it(watch)).map(|(number, _)| *number));
        }
        let is_it = |process: &Process| match process {
            Process::Pid(other) => other == pid,
            Process::Name(other) => other == name,
        };
        let mut exits = Vec::new();
        for (peer, link) in &mut state.peers {
            for (_, (reference, from, to)) in link.monitors.extract_if(|_, (_, _, to)| is_it(to)) {
                exits.push((Arc::clone(peer), monitor_exit(to, from, reference, "normal")));
            }
        }
        drop(state);
        for number in set_by_it {
            self.unwatch(pid, number);
        }
        for (peer, message) in exits {
            let _gone = self.push(&peer, message);
        }
    }
}

impl State {
    fn find(&self, process: &Process) -> Option<&Registered> {
        match process {
            Process::Name(name) => self.processes.get(name),
            Process::Pid(pid) => self.processes.values().find(|process| process.pid == *pid),
        }
    }

    fn tell_all(&self, make: impl Fn() -> Inbound) {
        for process in self.processes.values() {
            let _closed = process.mailbox.send(make());
        }
    }
}

pub(super) fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [u32::from_be_bytes([e, f, g, h]), u32::from_be_bytes([a, b, c, d])]
}

#[cfg(test)]
mod tests;
