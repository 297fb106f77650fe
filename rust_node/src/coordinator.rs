//! Connects the distribution layer with the drain service: passes messages in both directions, and reads the
//! clock.
//!
//! Guarantee: all queued messages are handled before the engines decide, so that a burst of outcomes costs
//! one decision. All messages of one round are sent together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etf::Pid;
use handoff_core::Goal;
use handoff_core::time::Micros;
use handoff_wire::{
    AGENT_PROCESS, Announce, Describe, Message, NODE_PROCESS, Refuse, RefuseReason, RequestId, Welcome, WireError,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::distribution::{Delivery, Inbound, Mailbox, MonitorRef, Node, Process};
use crate::metrics::Metrics;
use crate::service::overview::{Overview, SupervisorLine};
use crate::service::presence::{Agent, Presence};
use crate::service::{DrainInfo, EndedDrain, Key, Output, Refusal, Service, ServiceLimits};

pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// The most messages that are handled before the engines decide.
const BATCH: usize = 1_000;
/// The time for the last messages of a node that stops, and for its peers to close their connections.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
#[error("a process named {NODE_PROCESS} is registered already")]
pub struct NameTaken;

#[derive(Debug)]
pub struct Query(pub oneshot::Sender<Snapshot>);

#[derive(Debug)]
pub struct Snapshot {
    pub drains: Vec<DrainInfo>,
    /// The latest drains that have ended, newest first.
    pub ended: Vec<EndedDrain>,
    /// The latest refusals, newest first.
    pub refused: Vec<Refusal>,
    /// The supervisors of each node, from the node's latest description.
    pub supervisors: BTreeMap<String, Vec<SupervisorLine>>,
    /// The nodes whose agents know this node, with the library's release.
    pub agents: BTreeMap<String, String>,
}

#[derive(Debug)]
pub struct Coordinator {
    node: Node,
    mailbox: Mailbox,
    service: Service,
    presence: Presence,
    overview: Overview,
    /// The purpose of each monitor that the coordinator has set.
    monitors: HashMap<MonitorRef, Watched>,
    drainers: HashMap<Key, MonitorRef>,
    agents: HashMap<Arc<str>, MonitorRef>,
    metrics: Metrics,
    began: Instant,
}

#[derive(Debug)]
enum Watched {
    Drain(Key),
    Agent(Arc<str>, Pid),
}

impl Coordinator {
    /// Creates the coordinator of that node.
    pub fn new(node: &Node, limits: ServiceLimits) -> Result<Self, NameTaken> {
        let metrics = node.options().metrics.clone();
        Ok(Coordinator {
            mailbox: node.register(NODE_PROCESS).ok_or(NameTaken)?,
            node: node.clone(),
            service: Service::new(limits, metrics.clone()),
            presence: Presence::default(),
            overview: Overview::default(),
            monitors: HashMap::new(),
            drainers: HashMap::new(),
            agents: HashMap::new(),
            metrics,
            began: Instant::now(),
        })
    }

    /// Runs until `stop`; then hands every drain back to its node and tells every agent that this node stops.
    pub async fn run(mut self, mut queries: mpsc::Receiver<Query>, stop: CancellationToken) {
        loop {
            let wake = self.service.wake().into_iter().chain(self.presence.wake()).min();
            let pause = wake.map_or(Duration::from_secs(3_600), |at| Duration::from_micros(at.since(self.now()).0));
            let mut first = None;
            tokio::select! {
                () = stop.cancelled() => break,
                inbound = self.mailbox.receive() => match inbound {
                    Some(inbound) => first = Some(inbound),
                    None => return,
                },
                Some(query) = queries.recv() => self.answer(query),
                () = sleep(pause) => {}
            }
            // One time for the whole round, read before the mailbox is emptied: however long the round takes,
            // a drain whose message is in the mailbox does not count as silent.
            let now = self.now();
            first.into_iter().for_each(|inbound| self.take_in(now, inbound));
            for _ in 1..BATCH {
                let Some(inbound) = self.mailbox.try_receive() else {
                    break;
                };
                self.take_in(now, inbound);
            }
            self.service.advance(now);
            self.send_out();
            for peer in self.presence.take_due(now) {
                self.announce(&peer, true);
            }
        }
        info!("stopping: drains are handed back to their nodes");
        // The announcement comes first, so that a drain that is handed back does not choose this node again.
        let agents: Vec<Arc<str>> = self.presence.agents().map(|(peer, _)| Arc::clone(peer)).collect();
        for peer in agents {
            self.announce(&peer, false);
        }
        self.service.stop(self.now());
        self.send_out();
        self.node.close(LAST_WORDS).await;
    }

    fn now(&self) -> Micros {
        Micros(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn take_in(&mut self, now: Micros, inbound: Inbound) {
        match inbound {
            Inbound::Message(delivery) => self.message(now, &delivery),
            Inbound::PeerUp { hidden: true, .. } => {}
            Inbound::PeerUp { peer, hidden: false } => {
                self.presence.add_node(now, Arc::clone(&peer));
                self.announce(&peer, true);
            }
            Inbound::PeerDown { peer } => {
                self.presence.remove_node(&peer);
                self.service.peer_down(now, &peer);
            }
            Inbound::Down { monitor, peer, reason } => match self.monitors.remove(&monitor) {
                Some(Watched::Drain(key)) => {
                    info!(%peer, drain = key.id.0, reason, "the drain's process has ended");
                    self.drainers.remove(&key);
                    self.service.drainer_down(now, &key);
                }
                Some(Watched::Agent(peer, pid)) => {
                    self.agents.remove(&peer);
                    self.presence.remove_agent(now, &peer, &pid);
                }
                None => {}
            },
        }
    }

    fn message(&mut self, now: Micros, delivery: &Delivery) {
        let peer = &delivery.peer;
        match Message::from_checked(&delivery.payload) {
            Ok(Message::Welcome(welcome)) => self.welcome(peer, welcome),
            // An answer of a node that was not asked is treated like any other message.
            Ok(Message::Description(description)) if self.overview.was_asked(peer) => {
                self.overview.take(now, peer, description);
                self.count_cordoned();
            }
            Ok(Message::Refuse(refuse)) => {
                if let Some(repeated) = self.node.note_mistake(peer, "refused_by_peer") {
                    warn!(%peer, reason = %refuse.reason, repeated, "refused by the other side");
                }
            }
            Ok(message) => self.service.receive(now, peer, delivery.from.as_ref(), message),
            Err(error) => self.refuse(now, peer, delivery.from.as_ref(), &error),
        }
    }

    /// Only one agent of each node is monitored, the latest that has answered.
    fn welcome(&mut self, peer: &Arc<str>, Welcome { agent: pid, release }: Welcome) {
        let agent = Agent { pid: pid.clone(), release };
        if pid.node.name != **peer || !self.presence.add_agent(peer, agent) {
            return;
        }
        info!(%peer, "an agent knows this node");
        let monitor = self.node.monitor(&self.mailbox, peer, Process::Pid(pid.clone()));
        self.monitors.insert(monitor, Watched::Agent(Arc::clone(peer), pid));
        if let Some(earlier) = self.agents.insert(Arc::clone(peer), monitor) {
            self.monitors.remove(&earlier);
            self.node.demonitor(&self.mailbox, earlier);
        }
    }

    fn refuse(&mut self, now: Micros, peer: &Arc<str>, from: Option<&Pid>, error: &WireError) {
        let invalid = || RefuseReason::Invalid { problems: vec![error.to_string()] };
        let (kind, reason) = match error {
            WireError::Version { got, takes } => ("version", Some(RefuseReason::Version { got: *got, takes: *takes })),
            WireError::NotOurs => ("not_ours", None),
            WireError::Kind { .. } => ("kind", Some(invalid())),
            _ => ("field", Some(invalid())),
        };
        Metrics::count(&self.metrics.refused, kind);
        // Otherwise a peer of another release would fill the log, and push other refusals out of the history.
        if let Some(repeated) = self.node.note_mistake(peer, kind) {
            let advice = match error {
                WireError::Version { .. } | WireError::Kind { .. } => {
                    "; the node may run a later release than this one"
                }
                _ => "",
            };
            warn!(%peer, %error, repeated, "message refused{advice}");
            self.service.note_refusal(now, peer, None, error.to_string());
        }
        if let (Some(reason), Some(from)) = (reason, from) {
            self.send(peer, &Process::Pid(from.clone()), &Refuse { id: None, reason }.into());
        }
    }

    fn announce(&self, peer: &str, accepting: bool) {
        let goals = Goal::ALL.map(|goal| goal.name().to_owned()).into();
        let announce = Announce { node: self.mailbox.pid.clone(), release: RELEASE.to_owned(), accepting, goals };
        self.send(peer, &Process::Name(AGENT_PROCESS.to_owned()), &announce.into());
    }

    fn send(&self, peer: &str, to: &Process, message: &Message) {
        if let Err(error) = self.node.send(peer, &self.mailbox.pid, to, message.to_term()) {
            debug!(peer, %error, kind = message.kind(), "not sent");
        }
    }

    fn send_out(&mut self) {
        for output in self.service.take_outputs() {
            match output {
                Output::Send { peer, to, message } => self.send(&peer, &Process::Pid(to), &message),
                Output::Monitor { key, drainer } => {
                    let monitor = self.node.monitor(&self.mailbox, &key.peer, Process::Pid(drainer));
                    self.monitors.insert(monitor, Watched::Drain(key.clone()));
                    self.drainers.insert(key, monitor);
                }
                Output::Demonitor { key } => {
                    if let Some(monitor) = self.drainers.remove(&key) {
                        self.monitors.remove(&monitor);
                        self.node.demonitor(&self.mailbox, monitor);
                    }
                }
            }
        }
    }

    fn answer(&mut self, Query(to): Query) {
        let now = self.now();
        if self.overview.is_due(now) {
            self.describe(now);
        }
        let agents = self.presence.agents().map(|(peer, agent)| (peer.to_string(), agent.release.clone())).collect();
        let _gone = to.send(Snapshot {
            drains: self.service.drains(now),
            ended: self.service.ended(now),
            refused: self.service.refused(now),
            supervisors: self.overview.lines(now),
            agents,
        });
    }

    fn describe(&mut self, now: Micros) {
        let peers: BTreeSet<Arc<str>> = self.presence.agents().map(|(peer, _)| Arc::clone(peer)).collect();
        let question = Describe { request: RequestId(0), from: self.mailbox.pid.clone() }.into();
        for peer in &peers {
            self.send(peer, &Process::Name(AGENT_PROCESS.to_owned()), &question);
        }
        self.overview.ask(now, peers);
        self.count_cordoned();
    }

    fn count_cordoned(&self) {
        self.metrics.cordoned.set(i64::try_from(self.overview.cordoned()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::testing;

    #[tokio::test]
    async fn any_number_of_new_agents_of_a_node_use_one_monitor() {
        let node = testing::node(crate::distribution::Limits::default());
        let mut coordinator = Coordinator::new(&node, ServiceLimits::default()).expect("the name is free");
        let peer: Arc<str> = testing::PEER.into();
        coordinator.take_in(Micros::ZERO, Inbound::PeerUp { peer: Arc::clone(&peer), hidden: false });
        for id in 0..100 {
            let agent = Pid::new(testing::PEER, id, 0, 1);
            coordinator.welcome(&peer, Welcome { agent, release: "1".to_owned() });
        }
        assert_eq!((coordinator.monitors.len(), coordinator.agents.len()), (1, 1));
        assert_eq!(coordinator.presence.agents().map(|(_, agent)| agent.pid.id).collect::<Vec<_>>(), [99]);
    }
}
