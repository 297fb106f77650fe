//! Monitors that this node has set on processes of peers.
//!
//! Guarantee: each monitor ends once: with the process, with the connection, or by `demonitor`.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::control::Process;
use super::processes::Inbound;

/// The monitors, by the number in their reference.
#[derive(Debug, Default)]
pub(super) struct Watches(HashMap<u64, Watch>);

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) peer: Arc<str>,
    pub(super) target: Process,
    pub(super) by: Watcher,
}

/// Who is notified when the monitored process ends: a call, or a process of this node.
#[derive(Debug)]
pub(super) enum Watcher {
    Call(u32),
    Process(UnboundedSender<Inbound>),
}

impl Watches {
    pub(super) fn insert(&mut self, number: u64, watch: Watch) {
        self.0.insert(number, watch);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Watch> {
        self.0.remove(&number)
    }

    /// Whether the monitored process is on `peer`.
    pub(super) fn is_at(&self, number: u64, peer: &str) -> bool {
        self.0.get(&number).is_some_and(|watch| *watch.peer == *peer)
    }

    pub(super) fn all_at(&self, peer: &str) -> Vec<u64> {
        self.numbers(|watch| *watch.peer == *peer)
    }

    pub(super) fn all_by(&self, mailbox: &UnboundedSender<Inbound>) -> Vec<u64> {
        self.numbers(|watch| matches!(&watch.by, Watcher::Process(by) if by.same_channel(mailbox)))
    }

    fn numbers(&self, which: impl Fn(&Watch) -> bool) -> Vec<u64> {
        self.0.iter().filter(|(_, watch)| which(watch)).map(|(number, _)| *number).collect()
    }
}
