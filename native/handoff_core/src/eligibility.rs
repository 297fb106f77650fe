//! Which nodes may take a server: the placement rules of DurableServer, and one rule of our own.
//!
//! Guarantee: [`eligible`] returns the result of DurableServer's `find_eligible_nodes`, in the same order.
//! The rules are numbered as in the contract. Tests compare them with answers recorded from DurableServer
//! (`test/vectors/eligible.json`).
//!
//! 1. Never the source; never a node that is draining.
//! 2. Healthy only: the newest heartbeat is at most 50 s old, and its stamp is at most 5 s in the future.
//! 3. Below each capacity limit, of all servers and of the module, where such limits exist.
//! 4. Below each resource limit where both numbers exist. Disk is ignored on a node of sticky level 0.
//! 5. With a non-empty sticky signature the node must match an open level.
//! 6. Order: sticky level, load ratio, newest heartbeat; ties by name.
//!
//! Our own rule comes after the second: never a node that reported that it cannot load the server's module.
//! DurableServer notices that only after the server was stopped.

use std::cmp::Ordering;

use crate::config::{Config, StickyLevel, StickyPolicy};
use crate::ids::ModuleId;
use crate::view::{ClusterView, NodeView, Scope};

/// The server to place, and the node that asks.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The node that asks. It is never eligible itself.
    pub source: &'a str,
    /// The server's module.
    pub module: ModuleId,
    /// The server's sticky signature. An empty one is no constraint.
    pub sticky: &'a [StickyLevel],
    /// How the signature counts.
    pub policy: StickyPolicy,
    /// Rule 2's age limit, milliseconds.
    pub max_age_ms: i64,
    /// Rule 2's tolerance for stamps in the future, milliseconds.
    pub future_skew_ms: i64,
}

impl<'a> Query<'a> {
    /// The query for one module and signature under a drain's configuration.
    pub fn new(config: &'a Config, module: ModuleId, sticky: &'a [StickyLevel]) -> Self {
        Query {
            source: &config.source.name,
            module,
            sticky,
            policy: config.sticky,
            max_age_ms: config.max_age_ms,
            future_skew_ms: config.future_skew_ms,
        }
    }
}

/// The position of an eligible node in rule 6's order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The index of the sticky level that the node matches; [`NO_LEVEL`] without a signature.
    pub level: u32,
    /// The highest of the node's load ratios; 0.0 without limits.
    pub busyness: f64,
}

/// The level of every node when there is no sticky signature. It sorts after all others.
pub const NO_LEVEL: u32 = u32::MAX;

/// The rule that a node fails, in the order of the checks: a node that fails a later rule came closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ineligible {
    /// Rule 1: the node is the source.
    Source,
    /// Rule 1: the node is draining.
    Draining,
    /// Rule 2: the heartbeat is too old, or too far in the future.
    Unhealthy,
    /// Our rule: the node lacks the module.
    ModuleMissing,
    /// Rule 5: the node matches no open sticky level.
    Sticky,
    /// Rules 3 and 4: the node is at a limit.
    Full,
}

/// Checks one node by rules 1 to 5 and ours. `now_ms` is the asking node's wall clock.
///
/// # Errors
/// The first rule that fails. Stickiness is checked before capacity, because it decides whether disk counts.
pub fn check(node: &NodeView, query: &Query<'_>, now_ms: i64) -> Result<Standing, Ineligible> {
    if node.name == query.source {
        return Err(Ineligible::Source);
    }
    if node.draining {
        return Err(Ineligible::Draining);
    }
    if !healthy(node, query.max_age_ms, query.future_skew_ms, now_ms) {
        return Err(Ineligible::Unhealthy);
    }
    if node.lacks(query.module) {
        return Err(Ineligible::ModuleMissing);
    }
    let level = sticky_level(node, query).ok_or(Ineligible::Sticky)?;
    let mut busyness: f64 = 0.0;
    for capacity in applicable(node, query.module) {
        if capacity.current >= capacity.limit {
            return Err(Ineligible::Full);
        }
        busyness = busyness.max(capacity.current / capacity.limit);
    }
    for (used, max) in [node.resources.cpu, node.resources.memory].into_iter().filter_map(|usage| usage.known()) {
        if used >= max {
            return Err(Ineligible::Full);
        }
        busyness = busyness.max(used / max);
    }
    let disk_full = node.resources.disk.known().is_some_and(|(used, max)| used >= max);
    if disk_full && level != 0 {
        return Err(Ineligible::Full);
    }
    Ok(Standing { level, busyness })
}

/// Rule 2.
pub fn healthy(node: &NodeView, max_age_ms: i64, future_skew_ms: i64, now_ms: i64) -> bool {
    let age_ms = now_ms.saturating_sub(node.stamp_ms);
    age_ms <= max_age_ms && age_ms >= future_skew_ms.saturating_neg()
}

/// The capacity limits of `node` that apply to a server of `module`.
pub fn applicable(node: &NodeView, module: ModuleId) -> impl Iterator<Item = &crate::view::Capacity> {
    node.capacity.iter().filter(move |capacity| match capacity.scope {
        Scope::Total => true,
        Scope::Module(counted) => counted == module,
    })
}

/// All eligible nodes in rule 6's order, as indices into `view.nodes`.
pub fn eligible(view: &ClusterView, query: &Query<'_>) -> Vec<usize> {
    let mut standing: Vec<(usize, Standing)> = view
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(index, node)| check(node, query, view.now_ms).ok().map(|standing| (index, standing)))
        .collect();
    standing.sort_by(|(a, left), (b, right)| {
        let (a, b) = (&view.nodes[*a], &view.nodes[*b]);
        left.level
            .cmp(&right.level)
            .then(left.busyness.partial_cmp(&right.busyness).unwrap_or(Ordering::Equal))
            .then(b.stamp_ms.cmp(&a.stamp_ms))
            .then_with(|| a.name.cmp(&b.name))
    });
    standing.into_iter().map(|(index, _)| index).collect()
}

/// Rule 5: the level that `node` matches, if that level is open.
fn sticky_level(node: &NodeView, query: &Query<'_>) -> Option<u32> {
    if query.policy == StickyPolicy::Ignore || query.sticky.is_empty() {
        return Some(NO_LEVEL);
    }
    let matched = query.sticky.iter().position(|level| match level {
        StickyLevel::Any { .. } => true,
        StickyLevel::Env { name, value, .. } => value.is_some() && node.env(name) == value.as_deref(),
    })?;
    let waited_for: u64 = query.sticky[..matched].iter().map(StickyLevel::delay_ms).fold(0, u64::saturating_add);
    let open = query.policy == StickyPolicy::AnyLevel || waited_for == 0;
    open.then(|| u32::try_from(matched).unwrap_or(NO_LEVEL))
}
