//! Who is connected, by which connection, and how connections end.
//!
//! Guarantee: a peer has one connection, the one it made last. When that ends, whoever waits for the peer, monitors something
//! there or has a mailbox here learns of it, once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use erl_dist::message::Message;
use etf::{Pid, Reference};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::connection::Queue;
use super::control::Process;
use super::frame;
use super::handshake::Peer;
use super::mailbox::Inbound;
use super::node::{Node, State};
use super::watches::Answer;
use crate::metrics::Metrics;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) queue: Queue,
    /// Cancelled: end it. Also cancelled when it ended.
    pub(super) end: CancellationToken,
    pub(super) hidden: bool,
    since: Instant,
    /// Monitors the peer holds on processes here.
    pub(super) monitors: HashMap<Vec<u32>, (Reference, Pid, Process)>,
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

    /// Ends the connection to a node.
    pub fn disconnect(&self, peer: &str) {
        if let Some(link) = self.lock().peers.get(peer) {
            link.end.cancel();
        }
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

    // What follows is for the other files of the layer.

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
                Metrics::count(&self.options().metrics.dropped, "slow_reader");
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
        if self.stopped().is_cancelled() {
            return Err(NotTaken::Stopped);
        }
        if state.peers.len() >= self.options().limits.peers {
            return Err(NotTaken::TooMany);
        }
        let (end, hidden) = (CancellationToken::new(), peer.is_hidden());
        let link = Link { id, queue, end: end.clone(), hidden, since: Instant::now(), monitors: HashMap::new() };
        state.peers.insert(Arc::clone(&name), link);
        self.options().metrics.connections.set(i64::try_from(state.peers.len()).unwrap_or(i64::MAX));
        state.tell_all(|| Inbound::PeerUp { peer: Arc::clone(&name), hidden });
        info!(peer = %name, hidden, "connected");
        Ok((name, end))
    }

    /// Ends a connection, if it is still the connection to that node: waiters and monitors learn of it.
    pub(super) fn detach(&self, peer: &str, id: u64) {
        self.detach_locked(&mut self.lock(), peer, id);
    }

    /// No peer is there any more, and none can come. What ends their connections.
    fn give_up_peers(&self) -> Vec<CancellationToken> {
        self.stopped().cancel();
        let mut state = self.lock();
        let peers: Vec<(Arc<str>, u64)> = state.peers.iter().map(|(name, link)| (Arc::clone(name), link.id)).collect();
        peers.iter().filter_map(|(peer, id)| self.forget(&mut state, peer, *id)).collect()
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
        self.options().metrics.connections.set(i64::try_from(state.peers.len()).unwrap_or(i64::MAX));
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
}

#[cfg(test)]
mod tests;
