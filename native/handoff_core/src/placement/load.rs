//! Projected load: the load of a node with one more server, in the best unit that can be compared.
//!
//! Guarantee: the load of a node never falls while servers are assigned to it. A node without room by
//! projection has no load.

use crate::eligibility::applicable;
use crate::ids::{ModuleId, NodeId};
use crate::ledger::{Count, Ledger};
use crate::view::NodeView;

/// The unit of loads, from the most to the least informative. Nodes are compared in the least informative
/// unit that one of them needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// The used part of the capacity limits.
    Fill,
    /// The number of servers.
    Servers,
    /// Only the servers assigned in this drain.
    Assigned,
}

/// The part of a resource that always counts as free, so that a machine at its limit has a large but finite
/// load.
const LEAST_HEADROOM: f64 = 0.05;

impl Metric {
    /// The most informative unit that this node's report allows.
    pub fn best(node: &NodeView, module: ModuleId) -> Metric {
        if applicable(node, module).next().is_some() {
            Metric::Fill
        } else if node.server_count().is_some() {
            Metric::Servers
        } else {
            Metric::Assigned
        }
    }
}

/// The load of `node` with one more server of `module`; `None` when there is no room for one.
///
/// Weighted least connections: the number (or ratio) after this server, divided by the free part of the
/// machine. Of two nodes with equally many servers, the one with the idler machine comes first, and no node
/// gets all servers.
pub fn projected(metric: Metric, id: NodeId, node: &NodeView, module: ModuleId, ledger: &Ledger) -> Option<f64> {
    let mut fill: f64 = 0.0;
    for capacity in applicable(node, module) {
        let count = Count::Limited(capacity.scope);
        let current = capacity.current + f64::from(ledger.assigned_of(id, count));
        if current >= capacity.limit {
            return None;
        }
        fill = fill.max((current - ledger.counted_twice(id, count) + 1.0) / capacity.limit);
    }
    let load = match metric {
        Metric::Fill => fill,
        Metric::Servers => carried(id, node, ledger).unwrap_or(0.0) + 1.0,
        // Servers of this drain are in no report yet.
        Metric::Assigned => f64::from(ledger.sent(id)) + 1.0,
    };
    Some(load / headroom(node))
}

/// The number of servers of `node` when all assigned servers have arrived.
pub fn carried(id: NodeId, node: &NodeView, ledger: &Ledger) -> Option<f64> {
    let assigned = f64::from(ledger.assigned_of(id, Count::Servers)) - ledger.counted_twice(id, Count::Servers);
    node.server_count().map(|servers| servers + assigned)
}

/// The free part of the machine's scarcest resource; 1.0 where nothing is known.
pub fn headroom(node: &NodeView) -> f64 {
    let used = [node.resources.cpu, node.resources.memory]
        .into_iter()
        .filter_map(|usage| usage.known())
        .map(|(used, max)| used / max)
        .fold(0.0, f64::max);
    (1.0 - used).clamp(LEAST_HEADROOM, 1.0)
}
