//! The node's connections: which one to a peer is kept, and how they end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Node;
use crate::distribution::handshake::Peer;
use crate::distribution::peers::{NotTaken, PeerInfo};
use crate::distribution::processes::Inbound;
use crate::distribution::queue::Queue;

impl Node {
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.lock().peers.list()
    }

    /// A token that is cancelled when the connection to a node ends; `None` without a connection.
    pub fn connected(&self, peer: &str) -> Option<CancellationToken> {
        self.lock().peers.end(peer)
    }

    pub fn disconnect(&self, peer: &str) {
        if let Some(end) = self.connected(peer) {
            end.cancel();
        }
    }

    /// Waits until all frames queued so far are written to the sockets, for at most `at_most`.
    pub async fn flushed(&self, at_most: Duration) {
        let all_empty = async {
            while !self.lock().peers.are_flushed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _in_time = tokio::time::timeout(at_most, all_empty).await;
    }

    /// Ends every connection and task of the node at once.
    pub fn stop(&self) {
        self.forget_peers().iter().for_each(CancellationToken::cancel);
    }

    /// Ends every connection and task of the node in good order: queued frames are sent, then the peer is
    /// read to the end. Closing with unread data would make the operating system reset the connection, and
    /// the peer could lose the last messages. After `at_most` the node stops as with [`Node::stop`].
    pub async fn close(&self, at_most: Duration) {
        let ends = self.forget_peers();
        let all_closed = async {
            for end in &ends {
                end.cancelled().await;
            }
        };
        let _in_time = tokio::time::timeout(at_most, all_closed).await;
        ends.iter().for_each(CancellationToken::cancel);
    }

    /// Forgets all peers and accepts no new ones. Returns the tokens that end the connections.
    fn forget_peers(&self) -> Vec<CancellationToken> {
        self.stopped().cancel();
        let mut state = self.lock();
        let peers: Vec<Arc<str>> = state.peers.iter().map(|(name, _)| Arc::clone(name)).collect();
        peers.iter().filter_map(|peer| state.peers.id(peer).and_then(|id| state.forget(peer, id))).collect()
    }

    /// Registers that this node dials the peer, until [`Node::end_dialling`]. An incoming connection of the
    /// peer takes this into account.
    pub(in crate::distribution) fn begin_dialling(&self, peer: &str) {
        self.lock().peers.begin_dialling(peer);
    }

    pub(in crate::distribution) fn end_dialling(&self, peer: &str) {
        self.lock().peers.end_dialling(peer);
    }

    pub(in crate::distribution) fn is_dialling(&self, peer: &str) -> bool {
        self.lock().peers.is_dialling(peer)
    }

    /// Registers a finished handshake as the connection to that node, in place of one with a lower `id`. The
    /// peer uses the connection that it made last, and the tasks of two handshakes may arrive here in either
    /// order. So the id of an incoming connection is drawn at accept, and that of an outgoing one when the
    /// peer has accepted it.
    pub(in crate::distribution) fn attach(
        &self,
        peer: &Peer,
        id: u64,
        queue: Queue,
    ) -> Result<(Arc<str>, CancellationToken), NotTaken> {
        let name: Arc<str> = peer.name.to_string().into();
        let mut state = self.lock();
        if let Some(other) = state.peers.id(&name) {
            if other > id {
                return Err(NotTaken::Outdated);
            }
            info!(peer = %name, "connected anew, the earlier connection is ended");
            state.detach(&name, other);
        }
        if self.stopped().is_cancelled() {
            return Err(NotTaken::Stopped);
        }
        if state.peers.len() >= self.options().limits.peers {
            return Err(NotTaken::TooMany);
        }
        let hidden = peer.is_hidden();
        let end = state.peers.add(Arc::clone(&name), id, queue, hidden);
        state.processes.send_to_all(|| Inbound::PeerUp { peer: Arc::clone(&name), hidden });
        self.0.troubles.clear(&name);
        info!(peer = %name, hidden, "connected");
        Ok((name, end))
    }

    /// Ends a connection, if it is still that node's, and notifies calls, monitors and mailboxes.
    pub(in crate::distribution) fn detach(&self, peer: &str, id: u64) {
        self.lock().detach(peer, id);
    }
}
