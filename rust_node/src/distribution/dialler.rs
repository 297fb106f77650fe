//! Connects to the configured nodes, and to all nodes that they know.
//!
//! Guarantee: a configured node is dialled again and again, with pauses that double up to the longest one and
//! vary by half, so that nodes that come back are not all dialled at the same time. A connection that ends
//! soon counts as a failed attempt, because two nodes with the same name end each other's connections. A node
//! that another node or DNS named is forgotten when it cannot be reached, and found again as long as a
//! connected node or DNS names it. A node is dialled at its configured port, else at the one that DNS has named
//! last, no matter who has named the node first.
//!
//! Connected nodes are asked with a fixed call to `rex`, `erlang:nodes()`. Every node has it, and it changes
//! nothing. It is the only function that this node makes a BEAM node evaluate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etf::{atom, tuple};
use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use super::cause::Cause;
use super::dial::dial;
use super::found::nodes_at;
use super::handshake::HandshakeError;
use super::names::{self, NodeName, Seed};
use super::node::Node;
use super::processes::Inbound;
use super::troubles::Origin;

/// The time limit of the answer to `erlang:nodes()`.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// A warning is logged after this many connections in a row that ended soon; a peer that restarts ends one.
const SHORT_CONNECTIONS: u32 = 4;

#[derive(Debug, Clone)]
pub struct Dialler {
    node: Node,
    known: Arc<Mutex<HashMap<String, Port>>>,
}

/// The port of a known node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Configured(u16),
    /// The one that DNS has named last, if any.
    Found(Option<u16>),
}

impl Dialler {
    /// Keeps `seeds` connected, and the nodes at every address of the hosts in `dns`, and asks connected
    /// nodes for more if `discover`.
    pub fn start(node: Node, seeds: &[Seed], dns: &[Seed], discover: bool) -> Dialler {
        let dialler = Dialler { node, known: Arc::default() };
        seeds.iter().for_each(|seed| dialler.add(seed.clone(), true));
        for host in dns {
            tokio::spawn(dialler.clone().resolve(host.clone()));
        }
        if discover {
            tokio::spawn(dialler.clone().discover());
        }
        dialler
    }

    pub fn known(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Port>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, seed: Seed, configured: bool) {
        let options = self.node.options();
        let name = &seed.name;
        let text = name.to_string();
        if *name == options.local.name || !options.allow.allows(&text) {
            return;
        }
        if names::is_long(name) != names::is_long(&options.local.name) {
            let error = HandshakeError::NameKind { peer: name.clone(), own: options.local.name.clone() };
            self.node.troubles().note(&text, Cause::NameKind, &error, Origin::Found);
            return;
        }
        let port = match seed.port {
            Some(port) if configured => Port::Configured(port),
            port => Port::Found(port),
        };
        let mut known = self.lock();
        if let Some(before) = known.get_mut(&text) {
            if matches!(before, Port::Found(_)) && seed.port.is_some() {
                *before = port;
            }
        } else if known.len() < options.limits.known {
            known.insert(text, port);
            tokio::spawn(self.clone().keep(seed.name, configured));
        }
    }

    /// The node with the port that is known for it now.
    fn seed(&self, name: &NodeName) -> Seed {
        let port = match self.lock().get(&name.to_string()) {
            Some(Port::Configured(port)) => Some(*port),
            Some(Port::Found(port)) => *port,
            None => None,
        };
        Seed { name: name.clone(), port }
    }

    /// Keeps one node connected until it is forgotten or this node stops.
    async fn keep(self, name: NodeName, configured: bool) {
        let stopped = self.node.stopped().clone();
        tokio::select! {
            () = stopped.cancelled() => {}
            () = self.dial_for_ever(&name, configured) => {
                debug!(peer = %name, "not reachable, forgotten");
                self.lock().remove(&name.to_string());
            }
        }
    }

    async fn dial_for_ever(&self, node_name: &NodeName, configured: bool) {
        let limits = &self.node.options().limits;
        let name = node_name.to_string();
        let (mut failures, mut short) = (0, 0);
        loop {
            let began = Instant::now();
            let dialled = match self.node.connected(&name) {
                Some(_) => Ok(()),
                None => dial(&self.node, &self.seed(node_name)).await,
            };
            match dialled {
                Ok(()) => {
                    if let Some(end) = self.node.connected(&name) {
                        end.cancelled().await;
                    }
                    let is_short = began.elapsed() < limits.backoff.1;
                    (failures, short) = if is_short { (failures + 1, short + 1) } else { (0, 0) };
                    if short >= SHORT_CONNECTIONS && self.node.note_mistake(&name, "short_connections").is_some() {
                        let own = &self.node.options().local.name;
                        warn!(peer = %name, %own, in_turn = short, "connections end soon after they are made: check whether another node runs under this node's name, and the peer's log");
                    }
                }
                Err(error) => {
                    short = 0;
                    let origin = if configured { Origin::Configured } else { Origin::Found };
                    if let Some(cause) = error.cause() {
                        self.node.troubles().note(&name, cause, &error, origin);
                    }
                    failures += 1;
                    if !configured && failures >= limits.forget_after {
                        return;
                    }
                }
            }
            sleep(pause(limits.backoff, failures)).await;
        }
    }

    async fn resolve(self, host: Seed) {
        let every = self.node.options().limits.discovery;
        loop {
            self.look_up(&host).await;
            tokio::select! {
                () = self.node.stopped().cancelled() => return,
                () = sleep(every) => {}
            }
        }
    }

    async fn look_up(&self, host: &Seed) {
        let troubles = self.node.troubles();
        match nodes_at(&self.node, host).await {
            Ok(found) => {
                troubles.clear(&host.name.to_string());
                for (name, error) in &found.failures {
                    troubles.note(name, error.cause().unwrap_or(Cause::Epmd), error, Origin::Found);
                }
                found.answered.iter().for_each(|name| troubles.clear(name));
                found.seeds.into_iter().for_each(|seed| self.add(seed, false));
            }
            Err(error) => {
                let cause = error.cause().unwrap_or(Cause::Dns);
                troubles.note(&host.name.to_string(), cause, &error, Origin::Configured);
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
            known.into_iter().for_each(|seed| dialler.add(seed, false));
        });
    }
}

/// The visible nodes to which a connected node is connected.
pub async fn nodes_known_by(node: &Node, peer: &str) -> Vec<Seed> {
    let leader = node.new_pid().into();
    let request = tuple([atom("call"), atom("erlang"), atom("nodes"), etf::list([]), leader]);
    let answer = node.call(peer, "rex", request, ASK_TIMEOUT).await;
    let answer = answer.inspect_err(|error| debug!(peer, %error, "does not say which nodes it knows"));
    let Ok(answer) = answer else { return Vec::new() };
    let names = etf::read_list(&answer, "nodes").unwrap_or_default();
    names.iter().filter_map(etf::atom_name).filter_map(|name| names::parse(name).ok()).map(Seed::from).collect()
}

/// A random time between half and all of the pause, which doubles with each failure up to the longest one.
fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::super::handshake::{self, Local, Prefix};
    use super::super::limits::Limits;
    use super::super::testing;
    use super::*;

    #[tokio::test]
    async fn a_node_that_dns_names_and_that_cannot_be_reached_stays_listed() {
        let node = testing::node(Limits::default());
        let dialler = Dialler { node: node.clone(), known: Arc::default() };
        let listed = || node.troubles().list().into_iter().map(|unreachable| unreachable.name).collect::<Vec<_>>();
        node.troubles().note("app@127.0.0.1", Cause::Port, &"refused", Origin::Found);
        dialler.look_up(&names::parse_seed("app@localhost:1").expect("a name")).await;
        assert!(dialler.known().contains(&"app@127.0.0.1".to_owned()), "DNS names it");
        assert_eq!(listed(), ["app@127.0.0.1"], "which does not make it reachable");
    }

    /// As in a cluster without EPMD, where a connected node names a new node before DNS does.
    #[tokio::test]
    async fn a_node_that_another_node_has_named_is_dialled_at_the_port_that_dns_names_later() {
        let backoff = (Duration::from_millis(10), Duration::from_millis(10));
        let node = testing::node(Limits { backoff, forget_after: u32::MAX, ..Limits::default() });
        let dialler = Dialler { node: node.clone(), known: Arc::default() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let name = format!("nobody{port}");
        dialler.add(names::parse_seed(&format!("{name}@127.0.0.1")).expect("a name"), false);
        let dialled = async {
            while node.troubles().list().is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
            dialler.look_up(&names::parse_seed(&format!("{name}@localhost:{port}")).expect("a name")).await;
            listener.accept().await
        };
        tokio::time::timeout(Duration::from_secs(30), dialled).await.expect("in time").expect("accepted");
        node.stop();
    }

    #[tokio::test]
    async fn a_configured_port_stays_and_the_one_that_dns_names_last_replaces_earlier_ones() {
        let dialler = Dialler { node: testing::node(Limits::default()), known: Arc::default() };
        let add = |port: Option<u16>, configured: bool| {
            let name = names::parse(testing::PEER).expect("a name");
            dialler.add(Seed { name: name.clone(), port }, configured);
            dialler.seed(&name).port
        };
        let found = [None, Some(1), None, Some(2)].map(|port| add(port, false));
        assert_eq!(found, [None, Some(1), Some(1), Some(2)]);
        assert_eq!([(Some(3), true), (Some(4), false)].map(|(port, configured)| add(port, configured)), [Some(3); 2]);
    }

    /// The peer closes as it would when another node of the same name connects to it.
    #[tokio::test]
    async fn a_peer_that_ends_each_connection_at_once_is_dialled_less_and_less_often() {
        let first = Duration::from_millis(40);
        let backoff = (first, Duration::from_secs(3_600));
        let node = testing::node(Limits { backoff, handshake_timeout: Duration::from_secs(120), ..Limits::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let local = Local { name: names::parse(testing::PEER).expect("a name"), ..node.options().local.clone() };
        let seed = Seed { name: local.name.clone(), port: Some(port) };
        let _dialler = Dialler::start(node.clone(), &[seed], &[], false);
        let began = Instant::now();
        for _ in 0..5 {
            let (stream, _) = listener.accept().await.expect("dialled");
            let named = handshake::accept(stream, Prefix::Two).await.expect("a name");
            named.let_in("ok", &local).await.expect("let in");
        }
        // At least half of each pause, which doubles with each of the four connections.
        assert!(began.elapsed() >= first * (2 + 4 + 8 + 16) / 2, "{:?}", began.elapsed());
        node.stop();
    }

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
