//! The connected peers, their connections, and the monitors that they have set on processes of this node.
//!
//! Guarantee: each peer has one connection, the one that the peer made last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use etf::{Pid, Reference};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::control::Process;
use super::queue::{Queue, SendError};
use crate::metrics::Metrics;

#[derive(Debug)]
pub(super) struct Peers {
    links: BTreeMap<Arc<str>, Link>,
    dialling: HashSet<String>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Link {
    id: u64,
    queue: Queue,
    /// Cancelled to end the connection. It is also cancelled when the connection has ended.
    end: CancellationToken,
    hidden: bool,
    since: Instant,
    /// The monitors, by the words of their references.
    monitors: HashMap<Vec<u32>, Monitor>,
}

/// A monitor that a process of a peer has set on a process here.
#[derive(Debug, Clone)]
pub(super) struct Monitor {
    pub(super) reference: Reference,
    pub(super) by: Pid,
    pub(super) target: Process,
}

/// A connected node, for display.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PeerInfo {
    pub name: String,
    pub hidden: bool,
    pub connected_s: u64,
}

/// Why a finished handshake was not registered as a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotTaken {
    #[error("the peer has connected again since")]
    Outdated,
    #[error("too many connections")]
    TooMany,
    #[error("this node stops")]
    Stopped,
}

impl NotTaken {
    pub(super) fn label(self) -> &'static str {
        match self {
            NotTaken::Outdated => "outdated",
            NotTaken::TooMany => "too_many_peers",
            NotTaken::Stopped => "stopped",
        }
    }
}

impl Peers {
    pub(super) fn new(metrics: Metrics) -> Self {
        Peers { links: BTreeMap::new(), dialling: HashSet::new(), metrics }
    }

    pub(super) fn list(&self) -> Vec<PeerInfo> {
        let info = |(name, link): (&Arc<str>, &Link)| PeerInfo {
            name: name.to_string(),
            hidden: link.hidden,
            connected_s: link.since.elapsed().as_secs(),
        };
        self.links.iter().map(info).collect()
    }

    /// Each peer, and whether it is hidden.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, bool)> {
        self.links.iter().map(|(name, link)| (name, link.hidden))
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn name(&self, peer: &str) -> Option<Arc<str>> {
        self.links.get_key_value(peer).map(|(name, _)| Arc::clone(name))
    }

    pub(super) fn id(&self, peer: &str) -> Option<u64> {
        self.links.get(peer).map(|link| link.id)
    }

    pub(super) fn end(&self, peer: &str) -> Option<CancellationToken> {
        self.links.get(peer).map(|link| link.end.clone())
    }

    pub(super) fn are_flushed(&self) -> bool {
        self.links.values().all(|link| link.queue.is_empty())
    }

    /// Queues a frame. A peer that has not read the frames already queued is dropped.
    pub(super) fn push(&self, peer: &str, frame: Vec<u8>) -> Result<(), SendError> {
        let link = self.links.get(peer).filter(|link| !link.end.is_cancelled()).ok_or(SendError::NotConnected)?;
        link.queue.push(frame).inspect_err(|error| {
            if *error == SendError::Full {
                info!(peer, "does not read what it is sent, connection ended");
                Metrics::count(&self.metrics.dropped, "slow_reader");
                link.end.cancel();
            }
        })
    }

    pub(super) fn add(&mut self, name: Arc<str>, id: u64, queue: Queue, hidden: bool) -> CancellationToken {
        let end = CancellationToken::new();
        let link = Link { id, queue, end: end.clone(), hidden, since: Instant::now(), monitors: HashMap::new() };
        self.links.insert(name, link);
        self.count();
        end
    }

    /// Forgets a connection with its queue, if it is still that peer's connection. The writer ends when it
    /// has sent the queue. Returns the token that ends the connection.
    pub(super) fn remove(&mut self, peer: &str, id: u64) -> Option<(Arc<str>, CancellationToken)> {
        self.links.get(peer).filter(|link| link.id == id)?;
        let (name, link) = self.links.remove_entry(peer)?;
        self.count();
        Some((name, link.end))
    }

    fn count(&self) {
        let visible = self.links.values().filter(|link| !link.hidden).count();
        self.metrics.connections.set(i64::try_from(visible).unwrap_or(i64::MAX));
    }

    /// Returns false when the peer holds `limit` monitors already, or is not connected.
    pub(super) fn add_monitor(&mut self, peer: &str, limit: usize, monitor: Monitor) -> bool {
        let Some(link) = self.links.get_mut(peer).filter(|link| link.monitors.len() < limit) else {
            return false;
        };
        link.monitors.insert(monitor.reference.id.clone(), monitor);
        true
    }

    pub(super) fn remove_monitor(&mut self, peer: &str, reference: &Reference) {
        if let Some(link) = self.links.get_mut(peer) {
            link.monitors.remove(&reference.id);
        }
    }

    /// Removes the monitors on a process that has ended. Returns each with the peer that had set it.
    pub(super) fn take_monitors(&mut self, is_target: impl Fn(&Process) -> bool) -> Vec<(Arc<str>, Monitor)> {
        let mut taken = Vec::new();
        for (peer, link) in &mut self.links {
            let monitors = link.monitors.extract_if(|_, monitor| is_target(&monitor.target));
            taken.extend(monitors.map(|(_, monitor)| (Arc::clone(peer), monitor)));
        }
        taken
    }

    pub(super) fn begin_dialling(&mut self, name: &str) {
        self.dialling.insert(name.to_owned());
    }

    pub(super) fn end_dialling(&mut self, name: &str) {
        self.dialling.remove(name);
    }

    pub(super) fn is_dialling(&self, name: &str) -> bool {
        self.dialling.contains(name)
    }
}
