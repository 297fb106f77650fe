//! Scripted and timed events: drains, nodes that start and end, heartbeats.

use handoff_core::time::Micros;
use handoff_core::{ClusterView, Config, Event, Goal, ServerSpec, Shared, Source};

use crate::checker::ledger::Ledger;
use crate::checker::{Checker, Rule, Violation};
use crate::cluster::NodeIndex;
use crate::decider::Decider;
use crate::scenario::deploy::NEW_RELEASE;
use crate::scenario::{Do, Strategy, When};
use crate::servers::ServerIndex;
use crate::world::{Drain, Due, Group, World};

/// How soon a closed connection is noticed.
const NOTICE: Micros = Micros::from_millis(5);
/// How long a drain waits for the moves in flight of the rebalance that it ends.
const SETTLE: Micros = Micros::from_millis(1_000);
/// How long a server stays where it arrived, even in a rebalance.
const LATELY: Micros = Micros::from_millis(30_000);
/// How often the library refreshes the view of the cluster during a drain.
pub(super) const REFRESH: Micros = Micros::from_millis(1_000);

impl World {
    pub(super) fn script(&mut self, index: usize) {
        self.open -= 1;
        match self.scenario.script[index].1 {
            Do::Drain(node) => match self.draining(node) {
                Some(rebalance) if self.waits_for(rebalance) => {
                    self.open += 1;
                    self.queue.after(NOTICE, Due::Script(index));
                }
                _ => self.begin_session(node, Goal::Drain),
            },
            Do::Rebalance(node) => self.begin_session(node, Goal::Rebalance),
            Do::Cancel(node) => {
                if let Some(drain) = self.draining(node) {
                    self.cancel(drain);
                }
            }
            Do::Start(node) | Do::Upgrade(node) => {
                if matches!(self.scenario.script[index].1, Do::Upgrade(_)) {
                    self.cluster.node_mut(node).spec.generation = NEW_RELEASE;
                }
                self.cluster.start(node, self.now());
                self.groups.iter_mut().for_each(|group| group.ledger.forget(node));
                self.first_heartbeat(node);
            }
            Do::Kill(node) => {
                self.take_down(node);
                self.cluster.node_mut(node).connected = false;
                self.queue.after(NOTICE, Due::Lost(node));
            }
            Do::Vanish(node) => self.take_down(node),
            Do::Disconnect(node) => {
                self.cluster.node_mut(node).connected = false;
                self.queue.after(NOTICE, Due::Lost(node));
            }
            Do::Reconnect(node) => self.cluster.node_mut(node).connected = self.cluster.node(node).alive,
        }
    }

    /// The drain or rebalance of a node that began last, while it runs.
    fn draining(&self, node: NodeIndex) -> Option<usize> {
        self.drains.iter().rposition(|drain| drain.source == node && drain.over.is_none())
    }

    fn cancel(&mut self, drain: usize) {
        self.drains[drain].checker.told_cancelled();
        self.note(drain, 1, || "cancelled".into());
        self.tell(drain, Event::Cancel);
    }

    /// Whether a drain of the same node waits for this session to end. The library cancels a rebalance and
    /// waits for its moves in flight. After a while it begins to drain, and they end meanwhile.
    fn waits_for(&mut self, session: usize) -> bool {
        let (now, state) = (self.now(), &mut self.drains[session]);
        if state.goal == Goal::Drain {
            return false;
        }
        if state.waited_for.is_none() {
            state.waited_for = Some(now);
            self.cancel(session);
        }
        self.drains[session].waited_for.is_some_and(|since| now < since + SETTLE)
    }

    fn begin_session(&mut self, node: NodeIndex, goal: Goal) {
        let now = self.now();
        let state = self.cluster.node(node);
        let ends_a_rebalance = |session: usize| goal == Goal::Drain && self.drains[session].goal == Goal::Rebalance;
        let busy = self.draining(node).is_some_and(|session| !ends_a_rebalance(session));
        if busy || !state.alive || (goal == Goal::Rebalance && state.draining) {
            return;
        }
        if goal == Goal::Drain {
            self.cluster.node_mut(node).draining = true;
            // `stop_discovery` writes a heartbeat with the mark.
            self.write_heartbeat(node);
        }
        let servers = self.servers_to_move(node, goal);
        let config = Config { goal, ..self.config(node) };
        let specs: Vec<ServerSpec> = servers.iter().map(|index| self.servers.get(*index).spec()).collect();
        let group = self.group_for(node, &config);
        let view = self.first_view(node);
        let mut checker = Checker::new(&config, specs.iter().map(|spec| spec.sticky.0).collect(), now);
        checker.shown(view.clone());
        if self.scenario.coordinators > 0 {
            checker.shares_a_ledger();
        }
        self.enter_in_ledger(group, &view);
        let shared = &mut self.groups[group].shared;
        match Decider::new(self.scenario.strategy, &config, &specs, view, now, shared) {
            Ok(decider) => {
                let drain = self.drains.len();
                self.groups[group].drains.push(drain);
                let loads = if goal == Goal::Rebalance { self.cluster.loads().collect() } else { Vec::new() };
                let (armed, wanted, over) = (None, None, None);
                self.drains.push(Drain {
                    decider,
                    checker,
                    suspect: false,
                    group,
                    source: node,
                    goal,
                    servers,
                    loads,
                    armed,
                    wanted,
                    over,
                    waited_for: None,
                    dead: false,
                });
                self.queue.after(REFRESH, Due::Refresh(drain));
                self.note(drain, 3, || format!("drains {} servers", specs.len()));
                self.poll(drain);
            }
            Err(error) => {
                self.broken.push(Violation { at: now, rule: Rule::Protocol, detail: format!("not accepted: {error}") });
            }
        }
    }

    fn servers_to_move(&self, node: NodeIndex, goal: Goal) -> Vec<ServerIndex> {
        let mut servers = self.servers.on(node);
        if goal == Goal::Rebalance {
            // The library leaves out servers that arrived recently.
            servers.retain(|server| {
                let arrived = self.servers.get(*server).arrived_at;
                arrived == Micros::ZERO || self.now().since(arrived) >= LATELY
            });
        }
        servers
    }

    /// The first view of a node's drain or rebalance.
    fn first_view(&mut self, node: NodeIndex) -> ClusterView {
        let now = self.now();
        let asks = self.scenario.asks;
        let mut view = if asks { self.cluster.view_asked(node, now) } else { self.cluster.view(node, now) };
        self.count(node, &mut view);
        view
    }

    /// The numbers of servers in a view: exact for the own node, with the scenario's error for others.
    pub(super) fn count(&mut self, source: NodeIndex, view: &mut ClusterView) {
        let noise = self.scenario.count_noise;
        for node in &mut view.nodes {
            if node.name == self.cluster.node(source).spec.name {
                node.servers = Some(self.cluster.node(source).servers().into());
            } else if let Some(servers) = node.servers.filter(|_| noise > 0.0) {
                #[expect(clippy::cast_precision_loss, reason = "servers of a node")]
                let wrong = servers as f64 * self.random.within(1.0 - noise, 1.0 + noise);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "servers of a node")]
                let wrong = wrong.round() as u64;
                node.servers = Some(wrong);
            }
        }
    }

    fn config(&self, node: NodeIndex) -> Config {
        let (spec, started_at_ms) = (&self.cluster.node(node).spec, self.cluster.node(node).started_at_ms());
        let source = Source {
            name: spec.name.clone(),
            started_at_ms,
            generation: Some(spec.generation.to_owned()),
            region: Some(spec.region.to_owned()),
        };
        Config {
            source,
            stickies: self.scenario.stickies.clone(),
            modules: self.scenario.modules,
            ..self.scenario.config.clone()
        }
    }

    /// The group of the node's coordinator, else a new one.
    fn group_for(&mut self, node: NodeIndex, config: &Config) -> usize {
        let coordinators = self.scenario.coordinators;
        let wanted = if coordinators == 0 { self.groups.len() + 1 } else { coordinators };
        while self.groups.len() < wanted {
            self.groups.push(Group {
                shared: Shared::new(config),
                ledger: Ledger::new(self.cluster.len(), self.scenario.modules as usize),
                ceiling: config.max_concurrency,
                in_flight: 0,
                drains: Vec::new(),
            });
        }
        node.checked_rem(coordinators).unwrap_or(self.groups.len() - 1)
    }

    /// Gives a drain of a group the current view.
    pub(super) fn enter_in_ledger(&mut self, group: usize, view: &ClusterView) {
        let seen = (0..self.cluster.len()).filter_map(|node| Some((node, self.cluster.seen_written(node)?)));
        for ((node, written), shown) in seen.zip(&view.nodes) {
            let counted = if shown.counted_at_ms.is_some() { self.now() } else { written };
            self.groups[group].ledger.shown(node, counted, shown);
        }
    }

    /// Starts the script's events that wait for the end of this node's drain.
    pub(super) fn drain_ended(&mut self, node: NodeIndex) {
        for (index, (when, _)) in self.scenario.script.iter().enumerate() {
            if let When::After(awaited, ms) = when
                && *awaited == node
            {
                self.queue.after(Micros::from_millis(*ms), Due::Script(index));
            }
        }
    }

    /// A node that starts writes a heartbeat at once. A node that already runs wrote its latest one at a
    /// random time within the last interval.
    pub(super) fn first_heartbeat(&mut self, node: NodeIndex) {
        let spec = self.cluster.node(node).spec.clone();
        if !self.cluster.node(node).alive {
            return;
        }
        let fresh = self.now() > super::START;
        if spec.heartbeat_every_ms == 0 {
            let mut stuck = self.cluster.write(node, self.now());
            stuck.backdate(Micros::from_millis(spec.heartbeat_delay_ms));
            self.cluster.show(node, stuck);
        } else if fresh {
            self.write_heartbeat(node);
            self.queue.after(Micros::from_millis(spec.heartbeat_every_ms), Due::Heartbeat(node));
        } else {
            let age = self.random.between(0, spec.heartbeat_every_ms);
            let mut last = self.cluster.write(node, self.now());
            last.backdate(Micros::from_millis(age));
            self.cluster.show(node, last);
            self.queue.after(Micros::from_millis(spec.heartbeat_every_ms - age), Due::Heartbeat(node));
        }
    }

    pub(super) fn heartbeat(&mut self, node: NodeIndex) {
        if !self.cluster.node(node).alive {
            return;
        }
        if let Some(resumes) = self.cluster.resumes(node, self.now()) {
            return self.queue.at(resumes, Due::Heartbeat(node));
        }
        self.write_heartbeat(node);
        let every = Micros::from_millis(self.cluster.node(node).spec.heartbeat_every_ms);
        self.queue.after(every, Due::Heartbeat(node));
    }

    fn write_heartbeat(&mut self, node: NodeIndex) {
        let spec = &self.cluster.node(node).spec;
        if spec.heartbeat_every_ms > 0 {
            let delay = Micros::from_millis(spec.heartbeat_delay_ms);
            let heartbeat = Box::new(self.cluster.write(node, self.now()));
            self.queue.after(delay, Due::Seen(node, heartbeat));
        }
    }

    pub(super) fn is_engine(&self) -> bool {
        self.scenario.strategy == Strategy::Engine
    }
}
