//! The cluster as the source sees it: one [`NodeView`] for each node's newest heartbeat.
//!
//! Guarantee: a view that passed [`ClusterView::validate`] has finite numbers, unique names and a bounded
//! size. All later code relies on that.

use crate::ids::ModuleId;

/// More nodes than any BEAM cluster has. A longer list is an error.
pub const MAX_NODES: usize = 20_000;

/// What a capacity limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All servers of the node.
    Total,
    /// The servers of one module.
    Module(ModuleId),
}

/// A capacity limit as its node reported it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "(Scope, f64, f64)", into = "(Scope, f64, f64)")
)]
pub struct Capacity {
    /// The servers that count.
    pub scope: Scope,
    /// The number at the time of the report.
    pub current: f64,
    /// The largest allowed number.
    pub limit: f64,
}

/// A measured resource and its limit in percent. Either may be unknown.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// The used part.
    pub used: Option<f64>,
    /// The largest allowed part.
    pub max: Option<f64>,
}

impl Usage {
    /// Both numbers, if both are known.
    pub fn known(self) -> Option<(f64, f64)> {
        self.used.zip(self.max)
    }
}

/// The resources of a node's machine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "crate::shape::Machine", into = "crate::shape::Machine")
)]
pub struct Resources {
    /// Processor.
    pub cpu: Usage,
    /// Memory.
    pub memory: Usage,
    /// Disk.
    pub disk: Usage,
}

/// One node's newest heartbeat, and what else the source knows of the node.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeView {
    /// Node name, `name@host`.
    pub name: String,
    /// When the heartbeat was written, wall-clock milliseconds of that node.
    pub stamp_ms: i64,
    /// When `servers` and the `current` of `capacity` were counted, by the same clock, if the node was asked
    /// after that heartbeat.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub counted_at_ms: Option<i64>,
    /// When its supervisor started, in wall-clock milliseconds; known where this library runs.
    pub started_at_ms: Option<i64>,
    /// The release it runs; known where this library runs.
    pub generation: Option<String>,
    /// How many servers it had; known where this library runs.
    pub servers: Option<u64>,
    /// Its placement region.
    pub region: Option<String>,
    /// Whether the node is stopping.
    pub draining: bool,
    /// Whether the source is connected to the node.
    pub connected: bool,
    /// Its capacity limits.
    pub capacity: Vec<Capacity>,
    /// Its machine.
    #[cfg_attr(feature = "serde", serde(default))]
    pub resources: Resources,
    /// The environment variables that sticky rules refer to.
    pub env: Vec<(String, String)>,
    /// Modules of the drain that the node reported it cannot load. A node that was not asked, or cannot
    /// answer, counts as having all modules.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub missing: Vec<ModuleId>,
}

impl NodeView {
    /// The time at which its servers were counted.
    pub fn counted_ms(&self) -> i64 {
        self.counted_at_ms.map_or(self.stamp_ms, |counted_at_ms| counted_at_ms.max(self.stamp_ms))
    }

    /// Replaces what this view says of the node by a `newer` view of another drain. What the source alone knows
    /// stays: whether it is connected, and which modules of its drain the node lacks. A node that one of the
    /// two calls draining is draining.
    pub fn adopt(&mut self, newer: &NodeView) {
        *self = NodeView {
            connected: self.connected,
            missing: std::mem::take(&mut self.missing),
            draining: self.draining || newer.draining,
            stamp_ms: self.stamp_ms.max(newer.stamp_ms),
            ..newer.clone()
        };
    }

    /// Whether servers of `module` cannot run on the node.
    pub fn lacks(&self, module: ModuleId) -> bool {
        self.missing.contains(&module)
    }

    /// The node's number of servers, reported by this library or else by the node's total limit.
    pub fn server_count(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "no node has 2^53 servers")]
        let reported = self.servers.map(|count| count as f64);
        reported.or_else(|| self.total().map(|capacity| capacity.current))
    }

    /// The node's limit of all servers, if there is one.
    pub fn total_limit(&self) -> Option<f64> {
        self.total().map(|capacity| capacity.limit)
    }

    fn total(&self) -> Option<&Capacity> {
        self.capacity.iter().find(|capacity| capacity.scope == Scope::Total)
    }

    /// The value of an environment variable, if the node has it.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// All nodes at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ClusterView {
    /// The source's wall clock when the view was taken, milliseconds.
    pub now_ms: i64,
    /// Each node once, in any order.
    pub nodes: Vec<NodeView>,
}

impl ClusterView {
    /// Checks size, names and numbers.
    ///
    /// # Errors
    /// One sentence for each problem.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if self.nodes.len() > MAX_NODES {
            return Err(vec![format!("view: got {} nodes, takes at most {MAX_NODES}", self.nodes.len())]);
        }
        let mut names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            problems.push(format!("view: node {} occurs twice", pair[0]));
        }
        for node in &self.nodes {
            let limits = node.capacity.iter().flat_map(|capacity| [capacity.current, capacity.limit]);
            let resources = [node.resources.cpu, node.resources.memory, node.resources.disk];
            let usage = resources.iter().flat_map(|usage| usage.used.into_iter().chain(usage.max));
            if limits.chain(usage).any(|number| !number.is_finite()) {
                problems.push(format!("view: node {} has a number that is not finite", node.name));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}
