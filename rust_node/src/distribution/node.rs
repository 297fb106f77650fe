//! The node: its name and numbers, the processes registered here, and the state that the files beside this one share.
//!
//! Guarantee: the lock is held for look-ups and queueing only, never across an await. Whatever ends, a connection or a
//! process, leaves no waiter and no monitor behind.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use erl_dist::message::Message;
use etf::{Atom, Pid, Reference, Term};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::control::Process;
use super::handshake::Local;
use super::limits::Limits;
use super::mailbox::{Inbound, Mailbox};
use super::names::AllowList;
use super::peers::{Link, SendError};
use super::tls::Tls;
use super::watches::{Waiter, Watch, Watcher, monitor_exit};
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

#[derive(Debug)]
pub(super) struct Registered {
    pid: Pid,
    pub(super) mailbox: mpsc::UnboundedSender<Inbound>,
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
    pub(super) fn find(&self, process: &Process) -> Option<&Registered> {
        match process {
            Process::Name(name) => self.processes.get(name),
            Process::Pid(pid) => self.processes.values().find(|process| process.pid == *pid),
        }
    }

    pub(super) fn tell_all(&self, make: impl Fn() -> Inbound) {
        for process in self.processes.values() {
            let _closed = process.mailbox.send(make());
        }
    }
}

pub(super) fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [u32::from_be_bytes([e, f, g, h]), u32::from_be_bytes([a, b, c, d])]
}
