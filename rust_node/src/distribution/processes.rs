//! The processes registered on this node, and their mailboxes.
//!
//! Guarantee: a mailbox holds at most [`super::Limits::inbound`] bytes of messages of each peer. Dropping a
//! delivery gives its bytes back.

use std::collections::HashMap;
use std::sync::Arc;

use etf::{Checked, Pid};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::control::Process;

/// A monitor set by a process of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MonitorRef(pub(super) u64);

#[derive(Debug)]
pub struct Delivery {
    pub peer: Arc<str>,
    /// The sending process, if the message names it.
    pub from: Option<Pid>,
    pub payload: Checked<'static>,
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

/// What a process of this node receives.
#[derive(Debug)]
pub enum Inbound {
    Message(Delivery),
    /// A monitored process, or the connection to its node, has ended. The monitor is removed then.
    Down {
        peer: Arc<str>,
        monitor: MonitorRef,
        /// The exit reason, when it is an atom.
        reason: Option<String>,
    },
    PeerUp {
        peer: Arc<str>,
        hidden: bool,
    },
    PeerDown {
        peer: Arc<str>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Processes(HashMap<String, Registered>);

#[derive(Debug)]
struct Registered {
    pid: Pid,
    mailbox: UnboundedSender<Inbound>,
}

impl Processes {
    /// Returns `None` when the name is taken.
    pub(super) fn register(&mut self, name: &str, pid: Pid) -> Option<UnboundedReceiver<Inbound>> {
        if self.0.contains_key(name) {
            return None;
        }
        let (mailbox, receiver) = unbounded_channel();
        self.0.insert(name.to_owned(), Registered { pid, mailbox });
        Some(receiver)
    }

    pub(super) fn unregister(&mut self, name: &str, pid: &Pid) -> Option<UnboundedSender<Inbound>> {
        self.0.get(name).filter(|process| process.pid == *pid)?;
        self.0.remove(name).map(|process| process.mailbox)
    }

    pub(super) fn mailbox(&self, process: &Process) -> Option<&UnboundedSender<Inbound>> {
        let found = match process {
            Process::Name(name) => self.0.get(name),
            Process::Pid(pid) => self.0.values().find(|process| process.pid == *pid),
        };
        found.map(|process| &process.mailbox)
    }

    pub(super) fn send_to_all(&self, make: impl Fn() -> Inbound) {
        for process in self.0.values() {
            let _closed = process.mailbox.send(make());
        }
    }
}
