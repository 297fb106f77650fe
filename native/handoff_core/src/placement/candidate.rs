//! One eligible node of a class, and its sort key.

use std::cmp::Ordering;

use crate::freshness::Tier;
use crate::ids::{ModuleId, NodeId};
use crate::ledger::Ledger;
use crate::placement::load::{self, Metric};
use crate::view::NodeView;

/// A node that may take the servers of one class.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Index into the placement's nodes.
    pub node: usize,
    /// The sort key. Its load is that of the time when the candidate was built.
    pub key: Key,
    /// The unit of load of its rank.
    pub metric: Metric,
}

impl Candidate {
    /// The projected load now; `None` without room.
    pub fn load(&self, id: NodeId, node: &NodeView, module: ModuleId, ledger: &Ledger) -> Option<f64> {
        load::projected(self.metric, id, node, module, ledger)
    }
}

/// Sticky level, freshness tier, projected load, region. Smaller keys come first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    level: u32,
    tier: Tier,
    load: f64,
    elsewhere: bool,
}

impl Key {
    /// A key without load.
    pub fn new(level: u32, tier: Tier, near: bool) -> Key {
        Key { level, tier, load: 0.0, elsewhere: !near }
    }

    /// The same key with this load.
    pub fn with_load(self, load: f64) -> Key {
        Key { load, ..self }
    }

    /// The part of the key that load cannot change. Nodes of a better rank are always preferred.
    pub fn rank(&self) -> (u32, Tier) {
        (self.level, self.tier)
    }
}

impl Eq for Key {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank()).then(self.load.total_cmp(&other.load)).then(self.elsewhere.cmp(&other.elsewhere))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
