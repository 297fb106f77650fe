//! The node's state. When a connection or a monitored process ends, all dependent parts change together.

use std::sync::Arc;

use erl_dist::message::Message;
use etf::{Pid, Reference};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::calls::{Answer, Calls};
use super::frame;
use super::peers::{Monitor, Peers};
use super::processes::{Inbound, MonitorRef, Processes};
use super::queue::SendError;
use super::watches::{Watch, Watcher, Watches};
use crate::metrics::Metrics;

#[derive(Debug)]
pub(super) struct State {
    pub(super) peers: Peers,
    pub(super) processes: Processes,
    pub(super) watches: Watches,
    pub(super) calls: Calls,
}

impl State {
    pub(super) fn new(metrics: Metrics) -> Self {
        State {
            peers: Peers::new(metrics),
            processes: Processes::default(),
            watches: Watches::default(),
            calls: Calls::default(),
        }
    }

    /// Sets a monitor of this node. When the other node is not connected, the monitor ends at once.
    pub(super) fn watch(&mut self, number: u64, watch: Watch, from: Pid, reference: Reference) {
        let (peer, target) = (Arc::clone(&watch.peer), watch.target.clone());
        self.watches.insert(number, watch);
        let frame = written(Message::monitor_p(from, target.into(), reference));
        if let Err(error) = frame.and_then(|frame| self.peers.push(&peer, frame)) {
            debug!(%peer, %error, "monitor of a node that is not there");
            self.end_watch(number, Some("noconnection".to_owned()));
        }
    }

    pub(super) fn end_watch(&mut self, number: u64, reason: Option<String>) {
        let Some(watch) = self.watches.remove(number) else {
            return;
        };
        match watch.by {
            Watcher::Call(call) => {
                self.calls.answer(call, Answer::Down(reason.unwrap_or_else(|| "unknown".to_owned())));
            }
            Watcher::Process(mailbox) => {
                let _closed = mailbox.send(Inbound::Down { peer: watch.peer, monitor: MonitorRef(number), reason });
            }
        }
    }

    pub(super) fn detach(&mut self, peer: &str, id: u64) {
        if let Some(end) = self.forget(peer, id) {
            end.cancel();
        }
    }

    /// Forgets a connection, if it is still that peer's connection, and everything that depends on it.
    /// Returns the token that ends the connection.
    pub(super) fn forget(&mut self, peer: &str, id: u64) -> Option<CancellationToken> {
        let (name, end) = self.peers.remove(peer, id)?;
        self.calls.end_all_to(&name);
        for number in self.watches.all_at(&name) {
            self.end_watch(number, Some("noconnection".to_owned()));
        }
        self.processes.send_to_all(|| Inbound::PeerDown { peer: Arc::clone(&name) });
        info!(peer = %name, "disconnected");
        Some(end)
    }
}

pub(super) fn written(message: Message) -> Result<Vec<u8>, SendError> {
    frame::build(|out| message.write_into(out)).map_err(|_| SendError::Encode)
}

/// Tells the holder of a monitor that the process has ended.
pub(super) fn monitor_exit(monitor: Monitor, reason: &str) -> Message {
    Message::monitor_p_exit(monitor.target.into(), monitor.by, monitor.reference, etf::atom(reason))
}
