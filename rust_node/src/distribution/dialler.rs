//! Connects to the configured nodes, and to every node that these know.
//!
//! Guarantee: a configured node is dialled without end, with pauses that double up to the longest and vary by
//! half, so that nodes that come back are not all dialled at once. A node that was discovered, through
//! another node or DNS, is forgotten when it cannot be reached. It is rediscovered while a connected node or
//! DNS names it.
//!
//! Connected nodes are asked with one fixed call to `rex`, `erlang:nodes()`: it is there on every node, takes
//! no part in any decision and changes nothing. It is the only function this node ever has a BEAM node
//! evaluate.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etf::{atom, tuple};
use rand::RngExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use super::connection;
use super::epmd;
use super::handshake::{self, HandshakeError, Prefix};
use super::listener::label;
use super::names::{self, NodeName};
use super::node::Node;
use super::processes::Inbound;
use super::tls;
use crate::metrics::Metrics;

/// For the answer to `erlang:nodes()`, or of DNS.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a node was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The port mapper of its machine.
    #[error("{source}")]
    PortMapper {
        /// What it said.
        #[from]
        source: epmd::PortMapperError,
    },
    #[error("{source}")]
    Handshake {
        #[from]
        source: HandshakeError,
    },
    /// It took too long.
    #[error("no connection in time")]
    Timeout,
    /// This node does not take it.
    #[error("not allowed, connected otherwise meanwhile, or as many connections as there may be")]
    NotTaken,
}

/// The nodes being kept connected.
#[derive(Debug, Clone)]
pub struct Dialler {
    node: Node,
    known: Arc<Mutex<HashSet<String>>>,
}

impl Dialler {
    /// Keeps `seeds` connected, and the nodes at every address of the hosts in `dns`, and asks connected
    /// nodes for more if `discover`.
    pub fn start(node: Node, seeds: &[NodeName], dns: &[NodeName], discover: bool) -> Dialler {
        let dialler = Dialler { node, known: Arc::default() };
        seeds.iter().for_each(|seed| dialler.add(seed.clone(), true));
        for name in dns {
            tokio::spawn(dialler.clone().resolve(name.clone()));
        }
        if discover {
            tokio::spawn(dialler.clone().discover());
        }
        dialler
    }

    /// Names of all nodes that are being kept connected.
    pub fn known(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: NodeName, seed: bool) {
        let options = self.node.options();
        let text = name.to_string();
        let ours = name == options.local.name || names::is_long(&name) != names::is_long(&options.local.name);
        if ours || !options.allow.allows(&text) {
            return;
        }
        let mut known = self.lock();
        if known.len() < options.limits.known && known.insert(text) {
            tokio::spawn(self.clone().keep(name, seed));
        }
    }

    /// Keeps one node connected until it is forgotten or this node stops.
    async fn keep(self, name: NodeName, seed: bool) {
        let stopped = self.node.stopped().clone();
        tokio::select! {
            () = stopped.cancelled() => {}
            () = self.dial_for_ever(&name, seed) => {
                info!(peer = %name, "not reachable, forgotten");
                self.lock().remove(&name.to_string());
            }
        }
    }

    async fn dial_for_ever(&self, name: &NodeName, seed: bool) {
        let limits = &self.node.options().limits;
        let mut failures = 0;
        loop {
            if let Some(end) = self.node.connection(&name.to_string()) {
                end.cancelled().await;
                failures = 0;
            } else {
                match dial(&self.node, name).await {
                    Ok(()) => continue,
                    Err(error) => {
                        debug!(peer = %name, %error, failures, "not reached");
                        failures += 1;
                        if !seed && failures >= limits.forget_after {
                            return;
                        }
                    }
                }
            }
            sleep(pause(limits.backoff, failures)).await;
        }
    }

    /// Looks a host up again and again.
    async fn resolve(self, name: NodeName) {
        let every = self.node.options().limits.discovery;
        loop {
            nodes_at(&name).await.into_iter().for_each(|name| self.add(name, false));
            tokio::select! {
                () = self.node.stopped().cancelled() => return,
                () = sleep(every) => {}
            }
        }
    }

    /// Asks a node which nodes it knows when it connects, and all of them at intervals.
    async fn discover(self) {
        let Some(mut mailbox) = self.node.register("durable_handoff_discovery") else { return };
        let mut poll = interval(self.node.options().limits.discovery);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                inbound = mailbox.receive() => match inbound {
                    Some(Inbound::PeerUp { peer, hidden: false }) => self.ask(peer.to_string()),
                    Some(_) => {}
                    None => return,
                },
                _ = poll.tick() => {
                    self.node.peers().into_iter().filter(|peer| !peer.hidden).for_each(|peer| self.ask(peer.name));
                }
            }
        }
    }

    fn ask(&self, peer: String) {
        let dialler = self.clone();
        tokio::spawn(async move {
            let known = nodes_known_by(&dialler.node, &peer).await;
            known.into_iter().for_each(|name| dialler.add(name, false));
        });
    }
}

/// A node at each address that DNS has for the host of `name`, named by the address: that is how the pods
/// behind a headless Kubernetes service are called.
pub async fn nodes_at(name: &NodeName) -> Vec<NodeName> {
    match timeout(ASK_TIMEOUT, lookup_host((name.host(), 0))).await {
        Ok(Ok(addresses)) => {
            let at = |address: SocketAddr| names::parse(&format!("{}@{}", name.name(), address.ip())).ok();
            addresses.filter_map(at).collect()
        }
        Ok(Err(error)) => {
            warn!(host = name.host(), %error, "not found in DNS");
            Vec::new()
        }
        Err(_) => {
            warn!(host = name.host(), "DNS does not answer");
            Vec::new()
        }
    }
}

/// The visible nodes a connected node is connected to.
pub async fn nodes_known_by(node: &Node, peer: &str) -> Vec<NodeName> {
    let leader = node.new_pid().into();
    let request = tuple([atom("call"), atom("erlang"), atom("nodes"), etf::list([]), leader]);
    let answer = node.call(peer, "rex", request, ASK_TIMEOUT).await;
    let answer = answer.inspect_err(|error| debug!(peer, %error, "does not say which nodes it knows"));
    let Ok(answer) = answer else { return Vec::new() };
    let names = etf::read_list(&answer, "nodes").unwrap_or_default();
    names.iter().filter_map(etf::atom_name).filter_map(|name| names::parse(name).ok()).collect()
}

/// Connects to a node.
///
/// # Errors
/// [`DialError`].
pub async fn dial(node: &Node, name: &NodeName) -> Result<(), DialError> {
    let text = name.to_string();
    if !node.options().allow.allows(&text) {
        return Err(DialError::NotTaken);
    }
    let _dialling = Dialling::begin(node, text);
    let limit = node.options().limits.handshake_timeout;
    let outcome = timeout(limit, reach(node, name)).await.unwrap_or(Err(DialError::Timeout));
    let kind = match &outcome {
        Ok(()) => "dialled",
        Err(DialError::Handshake { source }) => label(source),
        Err(DialError::PortMapper { .. }) => "epmd",
        Err(DialError::Timeout) => "timeout",
        Err(DialError::NotTaken) => "not_taken",
    };
    Metrics::count(&node.options().metrics.handshakes, kind);
    outcome
}

async fn reach(node: &Node, name: &NodeName) -> Result<(), DialError> {
    let options = node.options();
    let port = epmd::lookup(name.host(), options.epmd_port, name.name()).await?;
    let stream = TcpStream::connect((name.host(), port)).await.map_err(HandshakeError::from)?;
    stream.set_nodelay(true).map_err(HandshakeError::from)?;
    let taken = match &options.tls {
        None => {
            let (stream, peer) = handshake::connect(stream, Prefix::Two, &options.local, name).await?;
            connection::start(node, stream, &peer, node.new_number())
        }
        Some(tls) => {
            let host = tls::server_name(name.host()).map_err(HandshakeError::from)?;
            let stream = tls.connector.connect(host, stream).await.map_err(HandshakeError::from)?;
            let (stream, peer) = handshake::connect(stream, Prefix::Four, &options.local, name).await?;
            connection::start(node, stream, &peer, node.new_number())
        }
    };
    taken.map_err(|_| DialError::NotTaken)
}

/// A dial under way, so that an accept of the same node knows of it.
struct Dialling<'a> {
    node: &'a Node,
    name: String,
}

impl<'a> Dialling<'a> {
    fn begin(node: &'a Node, name: String) -> Self {
        node.begin_dialling(&name);
        Dialling { node, name }
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.node.end_dialling(&self.name);
    }
}

/// Between half and all of the first pause, doubled for each failure, up to the longest.
fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary() {
        let backoff = (Duration::from_millis(100), Duration::from_secs(5));
        for (failures, full) in [(0, 100), (1, 200), (3, 800), (40, 5_000)] {
            for _ in 0..100 {
                let got = pause(backoff, failures).as_millis();
                assert!(got >= full / 2 && got <= full, "{failures}: {got}");
            }
        }
    }
}
