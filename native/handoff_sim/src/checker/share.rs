//! The moves that a rebalance may make, computed from its first view and without the engine's arithmetic.

use std::collections::BTreeMap;

use handoff_core::{ClusterView, Config, NodeView};

/// Rounding may cost one server.
const ROUNDING: f64 = 1.000_1;

/// The excess of a rebalance, and what was moved.
#[derive(Debug)]
pub(crate) struct Shares {
    source: String,
    ages: (i64, i64),
    /// How many servers the source may send.
    excess: f64,
    /// How many servers each node may be sent.
    room: BTreeMap<String, f64>,
    sent: f64,
    /// Whether the rebalance also knows the views and moves of other rebalances.
    knows_more: bool,
}

impl Shares {
    /// The shares in a view.
    pub(crate) fn of(view: &ClusterView, config: &Config) -> Shares {
        let ages = (config.max_age_ms, config.future_skew_ms);
        let source = config.source.name.clone();
        let counted: Vec<(&NodeView, f64)> = view
            .nodes
            .iter()
            .filter(|node| node.name == source || is_healthy(node, view.now_ms, ages))
            .filter_map(|node| Some((node, servers(node)?)))
            .collect();
        let shares = shares(&counted.iter().map(|(node, servers)| (*servers, limit(node))).collect::<Vec<_>>());
        let room: BTreeMap<String, f64> =
            counted.iter().zip(shares).map(|((node, servers), share)| (node.name.clone(), share - servers)).collect();
        let excess = room.get(&source).map_or(0.0, |room| -room);
        Shares { excess, room, source, ages, sent: 0.0, knows_more: false }
    }

    /// Records one more move to `target`. Returns what is wrong with it, if anything.
    pub(crate) fn moves(&mut self, target: &str, view: &ClusterView) -> Option<String> {
        self.sent += 1.0;
        let room = self.room.get(target).copied().unwrap_or(0.0);
        let draining =
            |node: &&NodeView| node.name != self.source && node.draining && is_healthy(node, view.now_ms, self.ages);
        if self.sent > self.excess + ROUNDING && !self.knows_more {
            Some(format!("it is number {}, the excess is {:.2}", self.sent, self.excess))
        } else if room <= 0.0 && !self.knows_more {
            Some(format!("the target has {:.2} more than its share", -room))
        } else {
            view.nodes.iter().find(draining).map(|node| format!("{} drains", node.name))
        }
    }

    /// Records that the rebalance also has numbers that are not in its views.
    pub(crate) fn knows_more(&mut self) {
        self.knows_more = true;
    }

    /// Records that a server that had begun to move stays.
    pub(crate) fn stays(&mut self) {
        self.sent -= 1.0;
    }
}

fn is_healthy(node: &NodeView, now_ms: i64, (max_age_ms, skew_ms): (i64, i64)) -> bool {
    (-skew_ms..=max_age_ms).contains(&(now_ms - node.stamp_ms))
}

#[expect(clippy::cast_precision_loss, reason = "servers of a node")]
fn servers(node: &NodeView) -> Option<f64> {
    node.servers.map(|servers| servers as f64).or_else(|| {
        let total = node.capacity.iter().find(|capacity| capacity.scope == handoff_core::Scope::Total);
        total.map(|total| total.current)
    })
}

fn limit(node: &NodeView) -> Option<f64> {
    let total = node.capacity.iter().find(|capacity| capacity.scope == handoff_core::Scope::Total);
    total.map(|total| total.limit)
}

/// The share of each node, given as pairs of servers and limit: proportional to the limit if all nodes have
/// one, else the same for all.
pub fn shares(nodes: &[(f64, Option<f64>)]) -> Vec<f64> {
    let all: f64 = nodes.iter().map(|(servers, _)| servers).sum();
    let limited = nodes.iter().all(|(_, limit)| limit.is_some());
    let share = |limit: Option<f64>, level: f64| match limit {
        Some(limit) if limited => limit * level.min(1.0),
        Some(limit) => limit.min(level),
        None => level,
    };
    // The level to which all servers together fill the nodes, found by bisection.
    let (mut low, mut high) = (0.0, all.max(1.0));
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        let poured: f64 = nodes.iter().map(|(_, limit)| share(*limit, middle)).sum();
        if poured < all { low = middle } else { high = middle }
    }
    nodes.iter().map(|(_, limit)| share(*limit, high)).collect()
}
