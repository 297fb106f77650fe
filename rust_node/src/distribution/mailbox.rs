//! What a process of this node receives.
//!
//! Guarantee: a mailbox holds at most [`super::Limits::inbound`] bytes of messages for each peer; the permit in a delivery gives them
//! back when it is dropped.

use std::sync::Arc;

use etf::{Checked, Pid};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;

use super::node::Node;

/// A monitor set by a process of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MonitorRef(pub(super) u64);

/// A message.
#[derive(Debug)]
pub struct Delivery {
    /// The node it came from.
    pub peer: Arc<str>,
    /// The process it came from, where the sender said so.
    pub from: Option<Pid>,
    pub payload: Checked<'static>,
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

/// Something for a process of this node.
#[derive(Debug)]
pub enum Inbound {
    /// A message.
    Message(Delivery),
    /// A monitored process has ended, or the connection to its node.
    Down {
        /// Its node.
        peer: Arc<str>,
        /// The monitor, which is gone now.
        monitor: MonitorRef,
        /// Why, when that is an atom.
        reason: Option<String>,
    },
    /// A node is connected.
    PeerUp {
        /// Which.
        peer: Arc<str>,
        /// A hidden one.
        hidden: bool,
    },
    /// A node is not connected any more.
    PeerDown {
        /// Which.
        peer: Arc<str>,
    },
}

/// A registered process: its pid, and what it receives. Dropping it ends the process.
#[derive(Debug)]
pub struct Mailbox {
    /// Its pid.
    pub pid: Pid,
    pub(super) name: String,
    pub(super) node: Node,
    pub(super) receiver: UnboundedReceiver<Inbound>,
}

impl Mailbox {
    /// The next thing, `None` when the node has stopped.
    pub async fn receive(&mut self) -> Option<Inbound> {
        self.receiver.recv().await
    }

    /// The next thing if it is there already.
    pub fn try_receive(&mut self) -> Option<Inbound> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.node.unregister(&self.name, &self.pid);
    }
}
