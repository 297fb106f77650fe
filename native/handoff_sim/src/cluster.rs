//! The virtual nodes: their true state, their heartbeats, and which heartbeats other nodes have received.
//!
//! Guarantee: a view contains only heartbeats that had been written and received by then, with stamps of
//! clocks that may be wrong.

use std::collections::HashMap;

use handoff_core::time::Micros;
use handoff_core::view::Usage;
use handoff_core::{Capacity, ClusterView, ModuleId, NodeView, Resources, Scope};

/// The wall clock of a node with a correct clock at virtual time zero, in milliseconds.
pub const WALL: i64 = 1_800_000_000_000;

/// A node in a scenario. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSpec {
    /// `name@host`.
    pub name: String,
    pub generation: &'static str,
    /// Its placement region.
    pub region: &'static str,
    /// How long before the start of the run the node started; negative for a later start.
    pub age_ms: i64,
    /// The node's clock minus the correct one.
    pub skew_ms: i64,
    /// The interval of heartbeats. 0: the node wrote one, `heartbeat_delay_ms` before the run, and no more.
    pub heartbeat_every_ms: u64,
    /// The time from writing a heartbeat until other nodes receive it.
    pub heartbeat_delay_ms: u64,
    /// Whether this library runs there and adds release, age and number of servers to heartbeats.
    pub library: bool,
    /// Limit of all servers.
    pub limit: Option<u32>,
    /// Limit of servers of module 0.
    pub module_limit: Option<u32>,
    /// Processor use and its limit, percent.
    pub cpu: Option<(f64, f64)>,
    /// The value of the environment variable that sticky rules ask for.
    pub zone: Option<&'static str>,
    /// The node refuses starts in these spans of the run.
    pub not_ready: Vec<(u64, u64)>,
    /// The node is suspended in these spans of the run: it answers nothing, and continues after them.
    pub suspended: Vec<(u64, u64)>,
}

#[derive(Debug, Clone)]
pub struct Heartbeat {
    written: Micros,
    stamp_ms: i64,
    draining: bool,
    total: u32,
    of_module: Vec<u32>,
}

impl Heartbeat {
    /// The same heartbeat, written earlier.
    pub fn backdate(&mut self, age: Micros) {
        self.written = self.written - age;
        self.stamp_ms = self.stamp_ms.saturating_sub_unsigned(age.as_millis());
    }
}

/// The true state of a node.
#[derive(Debug)]
pub struct Node {
    /// Its description in the scenario.
    pub spec: NodeSpec,
    pub alive: bool,
    /// Whether other nodes are connected to it, or have not yet noticed that the connection is lost.
    pub connected: bool,
    pub draining: bool,
    started: Option<i64>,
    of_module: Vec<u32>,
    seen: Option<Heartbeat>,
}

#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    names: HashMap<String, NodeIndex>,
    start: Micros,
}

/// A node's place in the list of a scenario.
pub type NodeIndex = usize;

impl Cluster {
    /// A cluster of these nodes, of which none runs yet.
    pub fn new(specs: Vec<NodeSpec>, modules: u32, start: Micros) -> Self {
        let names = specs.iter().map(|spec| spec.name.clone()).zip(0..).collect();
        let nodes = specs.into_iter().map(|spec| Node {
            spec,
            alive: false,
            connected: false,
            draining: false,
            started: None,
            of_module: vec![0; modules as usize],
            seen: None,
        });
        Cluster { nodes: nodes.collect(), names, start }
    }

    pub fn node(&self, index: NodeIndex) -> &Node {
        &self.nodes[index]
    }

    pub fn node_mut(&mut self, index: NodeIndex) -> &mut Node {
        &mut self.nodes[index]
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        self.names.get(name).copied()
    }

    pub fn wall_ms(&self, index: NodeIndex, now: Micros) -> i64 {
        wall(now) + self.nodes[index].spec.skew_ms
    }

    /// Starts or restarts a node, without servers.
    pub fn start(&mut self, index: NodeIndex, now: Micros) {
        let age = if now == self.start { self.nodes[index].spec.age_ms } else { 0 };
        let started = self.wall_ms(index, now) - age;
        let node = &mut self.nodes[index];
        (node.alive, node.connected, node.draining, node.started) = (true, true, false, Some(started));
        node.of_module.fill(0);
        node.seen = None;
    }

    /// The heartbeat that a node writes now.
    pub fn write(&self, index: NodeIndex, now: Micros) -> Heartbeat {
        let node = &self.nodes[index];
        Heartbeat {
            written: now,
            stamp_ms: self.wall_ms(index, now),
            draining: node.draining,
            total: node.servers(),
            of_module: node.of_module.clone(),
        }
    }

    /// Delivers a heartbeat to the other nodes, unless they have received a newer one.
    pub fn show(&mut self, index: NodeIndex, heartbeat: Heartbeat) {
        let seen = &mut self.nodes[index].seen;
        if seen.as_ref().is_none_or(|known| known.written <= heartbeat.written) {
            *seen = Some(heartbeat);
        }
    }

    /// When the heartbeat that the other nodes have now was written.
    pub fn seen_written(&self, index: NodeIndex) -> Option<Micros> {
        self.nodes[index].seen.as_ref().map(|heartbeat| heartbeat.written)
    }

    /// The cluster as `source` sees it now.
    pub fn view(&self, source: NodeIndex, now: Micros) -> ClusterView {
        let nodes = self.nodes.iter().filter_map(Node::view).collect();
        ClusterView { now_ms: self.wall_ms(source, now), nodes }
    }

    /// As `view`, after asking every connected node for its number of servers.
    pub fn view_asked(&self, source: NodeIndex, now: Micros) -> ClusterView {
        let mut view = self.view(source, now);
        for node in &mut view.nodes {
            let Some(index) = self.find(&node.name) else { continue };
            let asked = &self.nodes[index];
            let answers = asked.alive && self.resumes(index, now).is_none();
            if !(answers && asked.connected && asked.spec.library) {
                continue;
            }
            node.counted_at_ms = Some(self.wall_ms(index, now));
            node.servers = Some(asked.servers().into());
            for capacity in &mut node.capacity {
                capacity.current = match capacity.scope {
                    Scope::Total => asked.servers().into(),
                    Scope::Module(module) => asked.of_module[module.0 as usize].into(),
                };
            }
        }
        view
    }

    /// The latency between two nodes, one way, in milliseconds.
    pub fn distance_ms(&self, a: NodeIndex, b: NodeIndex) -> f64 {
        if self.same_region(a, b) { 0.3 } else { 30.0 }
    }

    /// Whether two nodes are in the same region.
    pub fn same_region(&self, a: NodeIndex, b: NodeIndex) -> bool {
        self.nodes[a].spec.region == self.nodes[b].spec.region
    }

    /// When a suspended node continues; `None` for a node that is not suspended.
    pub fn resumes(&self, index: NodeIndex, now: Micros) -> Option<Micros> {
        let ms = now.since(self.start).as_millis();
        let spans = &self.nodes[index].spec.suspended;
        let until = spans.iter().filter(|(from, until)| (*from..*until).contains(&ms)).map(|(_, until)| *until).max();
        until.map(|until| self.start + Micros::from_millis(until))
    }

    /// Whether a node would start a server of `module` now.
    pub fn is_ready(&self, index: NodeIndex, now: Micros) -> bool {
        let node = &self.nodes[index];
        let ms = now.since(self.start).as_millis();
        node.alive && !node.draining && !node.spec.not_ready.iter().any(|(from, until)| (*from..*until).contains(&ms))
    }

    /// Whether a node is at a limit for servers of `module`.
    pub fn is_full(&self, index: NodeIndex, module: u32) -> bool {
        let node = &self.nodes[index];
        node.spec.limit.is_some_and(|limit| node.servers() >= limit)
            || (module == 0 && node.spec.module_limit.is_some_and(|limit| node.of_module[0] >= limit))
    }

    /// The number of servers of each node; `None` for a node that does not run.
    pub fn loads(&self) -> impl Iterator<Item = Option<u32>> {
        self.nodes.iter().map(|node| node.alive.then(|| node.servers()))
    }

    pub fn arrive(&mut self, index: NodeIndex, module: u32) {
        self.nodes[index].of_module[module as usize] += 1;
    }

    pub fn leave(&mut self, index: NodeIndex, module: u32) {
        let count = &mut self.nodes[index].of_module[module as usize];
        *count = count.saturating_sub(1);
    }
}

impl Node {
    pub fn servers(&self) -> u32 {
        self.of_module.iter().sum()
    }

    /// When it started by its own clock, wall-clock milliseconds.
    pub fn started_at_ms(&self) -> Option<i64> {
        self.started
    }

    fn view(&self) -> Option<NodeView> {
        let seen = self.seen.as_ref()?;
        let capacity =
            |scope, current: u32, limit: u32| Capacity { scope, current: current.into(), limit: limit.into() };
        let total = self.spec.limit.map(|limit| capacity(Scope::Total, seen.total, limit));
        let module = self.spec.module_limit.map(|limit| capacity(Scope::Module(ModuleId(0)), seen.of_module[0], limit));
        let cpu = self.spec.cpu.map_or(Usage::default(), |(used, max)| Usage { used: Some(used), max: Some(max) });
        Some(NodeView {
            name: self.spec.name.clone(),
            stamp_ms: seen.stamp_ms,
            counted_at_ms: None,
            started_at_ms: self.started.filter(|_| self.spec.library),
            generation: self.spec.library.then(|| self.spec.generation.to_owned()),
            servers: self.spec.library.then_some(seen.total.into()),
            region: Some(self.spec.region.to_owned()),
            draining: seen.draining,
            connected: self.connected,
            capacity: total.into_iter().chain(module).collect(),
            resources: Resources { cpu, ..Resources::default() },
            env: self.spec.zone.map(|zone| (ZONE.to_owned(), zone.to_owned())).into_iter().collect(),
            missing: Vec::new(),
        })
    }
}

/// The environment variable that the sticky rules of scenarios ask for.
pub const ZONE: &str = "ZONE";

/// The correct wall clock in milliseconds.
pub fn wall(now: Micros) -> i64 {
    WALL.saturating_add_unsigned(now.as_millis())
}
