//! Shares: how many servers each node of a cluster should have, and how many servers a source moves to reach
//! its own share.
//!
//! Guarantees
//! - All nodes compute the same shares from the same view. So all sources together move no more than their
//!   excess, and no two sources fill the same free slot of a target: each source gets its own part of what
//!   every target lacks ([`split`]).
//! - A source ends at most one server below its share. No target ends above its share.
//! - Nothing moves while a node drains or stops, while nodes run different releases, while the release of only some
//!   nodes is known, or while the number of servers of a node is unknown or too old.
//!
//! The share of a node is proportional to its weight. Weights are those of placement: the node's total limit
//! if all nodes have one, else the same for all, times the free part of its machine. A share never exceeds a
//! limit. The load of a machine changes from one moment to the next, so it may only reduce moves: shares are
//! computed with and without it. A node has an excess, or lacks servers, only if both results say so.
//!
//! Nodes with more than `1 + tolerance` times their share move servers. When another node has less than `1 -
//! tolerance` times its share and these sources have too few servers to fill it (one new node among fifty,
//! for example), all nodes above their share move servers. That includes sources that begin while others on
//! the same ledger already fill that node.

mod split;

use std::collections::BTreeSet;

use crate::config::Config;
use crate::eligibility::healthy;
use crate::ids::NodeId;
use crate::ledger::Ledger;
use crate::placement::{Placement, carried, headroom};

/// Server counts older than this are not used, because they may lack the last moves of an earlier rebalance.
/// The value is two heartbeat intervals, or one interval and the largest allowed clock difference.
pub const MAX_COUNT_AGE_MS: i64 = 20_000;
/// A higher count or limit is an error. Sums and products of lower numbers are exact enough.
const MOST: f64 = 1e12;

/// Why a rebalance moves nothing, or stops before the excess is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Idle {
    /// The source has its share, or differs from it by too little.
    WithinTolerance,
    /// The source has more than its share, but fewer servers than [`Config::min_servers`].
    TooFewServers,
    /// No node is far enough below its share to take a server.
    NoTarget,
    /// A node, the source too, drains, stops or is cordoned.
    NodeDraining,
    /// Nodes run different releases.
    DeployInProgress,
    /// The release of some nodes is known and that of others is not, such as of nodes without this library.
    UnknownRelease,
    /// The view does not have the source's number of servers, or has numbers older than [`MAX_COUNT_AGE_MS`].
    UnknownLoad,
    /// The Rust node that coordinated the rebalance was lost.
    CoordinatorLost,
}

impl Idle {
    /// Every value.
    pub const ALL: [Idle; 8] = [
        Idle::WithinTolerance,
        Idle::TooFewServers,
        Idle::NoTarget,
        Idle::NodeDraining,
        Idle::DeployInProgress,
        Idle::UnknownRelease,
        Idle::UnknownLoad,
        Idle::CoordinatorLost,
    ];

    /// The name, the same in every language.
    pub const fn name(self) -> &'static str {
        match self {
            Idle::WithinTolerance => "within_tolerance",
            Idle::TooFewServers => "too_few_servers",
            Idle::NoTarget => "no_target",
            Idle::NodeDraining => "node_draining",
            Idle::DeployInProgress => "deploy_in_progress",
            Idle::UnknownRelease => "unknown_release",
            Idle::UnknownLoad => "unknown_load",
            Idle::CoordinatorLost => "coordinator_lost",
        }
    }
}

/// The current number of servers of a node, and its share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Carrier {
    /// The node.
    pub id: NodeId,
    /// The node's servers: now, or after all running rebalances have ended.
    pub servers: f64,
    /// The node's share by the weights of placement.
    pub share: f64,
    /// The larger of the shares with and without the machine's load. Servers above it are excess.
    high: f64,
    /// The smaller of the two shares. Servers missing below it are the lack.
    low: f64,
    /// Whether a running rebalance on the same ledger began while the node was light.
    filled: bool,
    /// Whether a running rebalance on the same ledger has decided what the node keeps. It moves nothing more.
    decided: bool,
}

impl Carrier {
    /// The number of servers above the share.
    pub fn excess(&self) -> f64 {
        (self.servers - self.high).max(0.0)
    }

    /// The number of servers below the share.
    pub fn lack(&self) -> f64 {
        (self.low - self.servers).max(0.0)
    }

    /// Whether the node lacks more than the tolerance, or did so before the running rebalances on the ledger.
    pub(crate) fn is_light(&self, tolerance: f64) -> bool {
        self.filled || self.servers < self.low * (1.0 - tolerance)
    }

    /// The least number of servers that a source keeps in a rebalance, whatever other nodes report.
    pub(crate) fn least(&self, tolerance: f64) -> f64 {
        self.high * (1.0 - tolerance) - 1.0
    }
}

/// The moves that one source may make.
#[derive(Debug, Clone, PartialEq)]
pub struct Quota {
    /// The total number of moves.
    pub moves: u64,
    /// The number of moves to each target that lacks servers, in the order of the carriers.
    pub targets: Vec<(Carrier, u64)>,
}

/// The moment for which servers are counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Moment {
    /// Servers in flight count at their target. The value is the source's own number.
    Now(f64),
    /// As `Now`, but everything that running rebalances on the same ledger will still move already counts at
    /// its target.
    AtTheEnd,
}

/// The nodes that have servers, ordered by name: those with a healthy heartbeat and a number of servers. For
/// the node of a running rebalance, the numbers of that rebalance replace those of the report, which may or
/// may not include servers in flight.
pub fn carriers(placement: &Placement, ledger: &Ledger, config: &Config, moment: Moment) -> Vec<Carrier> {
    let is_source = |name: &str| name == config.source.name;
    let mut nodes: Vec<_> = placement
        .nodes()
        .filter(|(_, node)| {
            is_source(&node.name) || healthy(node, config.max_age_ms, config.future_skew_ms, placement.now_ms())
        })
        .filter_map(|(id, node)| {
            let known = || carried(id, node, ledger);
            let leaves = ledger.leaves(id);
            let servers = match moment {
                Moment::Now(own) if is_source(&node.name) => Some(own),
                Moment::Now(_) => leaves.map(|leaves| leaves.now).or_else(known),
                Moment::AtTheEnd => leaves
                    .map(|leaves| leaves.at_the_end)
                    .or_else(known)
                    .map(|servers| servers + f64_of(ledger.promised(id))),
            };
            servers.map(|servers| (id, node, servers.clamp(0.0, MOST)))
        })
        .collect();
    nodes.sort_by(|(_, a, _), (_, b, _)| a.name.cmp(&b.name));
    let limits: Vec<Option<f64>> =
        nodes.iter().map(|(_, node, _)| node.total_limit().map(|limit| limit.clamp(0.0, MOST))).collect();
    let limited = limits.iter().all(Option::is_some);
    let weight = |index: usize| if limited { limits[index].unwrap_or(0.0) } else { 1.0 };
    let total = nodes.iter().map(|(_, _, servers)| servers).sum();
    let even = shares(total, &(0..nodes.len()).map(|index| (weight(index), limits[index])).collect::<Vec<_>>());
    let busy = |index: usize| (weight(index) * headroom(nodes[index].1), limits[index]);
    let weighted = shares(total, &(0..nodes.len()).map(busy).collect::<Vec<_>>());
    let of = |((id, _, servers), (share, even)): ((NodeId, _, f64), (&f64, &f64))| Carrier {
        id,
        servers,
        share: *share,
        high: share.max(*even),
        low: share.min(*even),
        filled: ledger.is_filled(id),
        decided: ledger.leaves(id).is_some(),
    };
    nodes.into_iter().zip(weighted.iter().zip(&even)).map(of).collect()
}

/// Divides `total` in proportion to the weights, without exceeding a limit.
fn shares(total: f64, nodes: &[(f64, Option<f64>)]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    // The load per weight at which a node reaches its limit, in ascending order.
    let full_at = |index: usize| {
        let (weight, limit) = nodes[index];
        limit.map_or(f64::INFINITY, |limit| if weight > 0.0 { limit / weight } else { 0.0 })
    };
    order.sort_by(|a, b| full_at(*a).total_cmp(&full_at(*b)));
    let mut rest = total;
    let mut weights: f64 = nodes.iter().map(|(weight, _)| weight).sum();
    let mut shares = vec![0.0; nodes.len()];
    for index in order {
        let (weight, limit) = nodes[index];
        let part = if weights > 0.0 { rest * (weight / weights).min(1.0) } else { 0.0 };
        let share = limit.map_or(part, |limit| part.min(limit)).max(0.0);
        shares[index] = share;
        rest -= share;
        weights -= weight;
    }
    shares
}

/// Why nothing may move in the current state of the cluster; `None` if moves are allowed.
pub fn obstacle(placement: &Placement, config: &Config) -> Option<Idle> {
    let now_ms = placement.now_ms();
    let mut releases = BTreeSet::new();
    let mut own = false;
    let mut draining = false;
    for (_, node) in placement.nodes() {
        if node.name == config.source.name {
            own = node.server_count().is_some();
        } else if !healthy(node, config.max_age_ms, config.future_skew_ms, now_ms) {
            continue;
        }
        draining |= node.draining;
        releases.insert(node.generation.as_deref());
    }
    let known = releases.iter().flatten().count();
    if draining {
        Some(Idle::NodeDraining)
    } else if known > 1 {
        Some(Idle::DeployInProgress)
    } else if releases.len() > 1 {
        Some(Idle::UnknownRelease)
    } else {
        (!own).then_some(Idle::UnknownLoad)
    }
}

/// Whether the numbers of servers are too old for a plan.
pub fn is_outdated(placement: &Placement, config: &Config) -> bool {
    let now_ms = placement.now_ms();
    placement.nodes().any(|(_, node)| {
        node.name != config.source.name
            && healthy(node, config.max_age_ms, config.future_skew_ms, now_ms)
            && node.server_count().is_some()
            && now_ms.saturating_sub(node.counted_ms()) > MAX_COUNT_AGE_MS
    })
}

/// The moves that `source` may make according to these numbers.
///
/// # Errors
/// Why the source may move nothing.
pub fn quota(carriers: &[Carrier], source: NodeId, config: &Config) -> Result<Quota, Idle> {
    let own = carriers.iter().find(|carrier| carrier.id == source).ok_or(Idle::UnknownLoad)?;
    let heavy = |carrier: &Carrier| carrier.servers > carrier.high * (1.0 + config.tolerance);
    let many = |carrier: &Carrier| carrier.servers >= f64::from(config.min_servers);
    let may_move = |carrier: &Carrier| many(carrier) && (carrier.id == source || !carrier.decided);
    let lacks: Vec<f64> = carriers.iter().map(Carrier::lack).collect();
    // Light nodes get only their part of what heavy nodes move. When there are no heavy nodes, all other
    // nodes move their part, too.
    let light = carriers.iter().any(|carrier| carrier.is_light(config.tolerance));
    let to_fill = if light { lacks.iter().map(|lack| whole(*lack)).sum() } else { 0 };
    let of_heavy: u64 = carriers
        .iter()
        .filter(|carrier| heavy(carrier) && may_move(carrier))
        .map(|carrier| whole(carrier.excess()))
        .sum();
    let moves_any = |carrier: &Carrier| may_move(carrier) && (heavy(carrier) || of_heavy < to_fill);
    if !moves_any(own) || own.excess() <= 0.0 {
        let would = heavy(own) || of_heavy < to_fill;
        return Err(if would && own.excess() >= 1.0 { Idle::TooFewServers } else { Idle::WithinTolerance });
    }
    let excesses: Vec<f64> =
        carriers.iter().map(|carrier| if moves_any(carrier) { carrier.excess() } else { 0.0 }).collect();
    let position = carriers.iter().position(|carrier| carrier.id == source).unwrap_or_default();
    let rounding = |carrier: &Carrier| if carrier.decided { carrier.excess() } else { 0.0 };
    let kept = carriers.iter().map(rounding).filter(|excess| *excess < 1.0).sum();
    let (moves, row) = split::split(&excesses, &lacks, kept, position);
    match (moves, lacks.iter().any(|lack| *lack >= 1.0)) {
        (0, false) if own.excess() >= 1.0 => Err(Idle::NoTarget),
        (0, _) => Err(Idle::WithinTolerance),
        _ => {
            let targets = carriers.iter().zip(row).filter(|(_, quota)| *quota > 0);
            Ok(Quota { moves, targets: targets.map(|(carrier, quota)| (*carrier, quota)).collect() })
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no node has 2^53 servers")]
pub(crate) fn f64_of(servers: u64) -> f64 {
    servers as f64
}

/// Rounds down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to MOST")]
pub(crate) fn whole(number: f64) -> u64 {
    // The addition corrects a division whose result is slightly below a whole number.
    (number.clamp(0.0, MOST) + 1e-6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carriers(servers: &[u32], shares: &[f64]) -> Vec<Carrier> {
        (0..)
            .zip(servers.iter().zip(shares))
            .map(|(id, (servers, share))| Carrier {
                id: NodeId(id),
                servers: f64::from(*servers),
                share: *share,
                high: *share,
                low: *share,
                filled: false,
                decided: false,
            })
            .collect()
    }

    fn even(servers: &[u32]) -> Vec<Carrier> {
        let nodes: Vec<_> = servers.iter().map(|_| (1.0, None)).collect();
        carriers(servers, &shares(servers.iter().copied().map(f64::from).sum(), &nodes))
    }

    fn moves(carriers: &[Carrier]) -> Vec<Result<u64, Idle>> {
        let config = Config { min_servers: 1, ..Config::default() };
        carriers.iter().map(|own| quota(carriers, own.id, &config).map(|quota| quota.moves)).collect()
    }

    const WITHIN: Result<u64, Idle> = Err(Idle::WithinTolerance);

    #[test]
    fn a_node_that_a_rolling_deploy_left_empty_gets_its_share() {
        assert_eq!(moves(&even(&[134, 133, 133, 0])), [Ok(34), Ok(33), Ok(33), WITHIN]);
    }

    #[test]
    fn one_new_node_among_many_gets_its_share_although_no_node_exceeds_the_tolerance() {
        let mut servers = vec![100; 64];
        servers.push(0);
        let moved: Vec<u64> = moves(&even(&servers)).into_iter().filter_map(Result::ok).collect();
        assert_eq!((moved.len(), moved.iter().sum::<u64>()), (64, 98));
        assert!(moved.iter().all(|moves| (1..=2).contains(moves)));
    }

    #[test]
    fn differences_of_one_server_move_nothing() {
        for servers in [[2, 2, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [3, 2, 2, 2]] {
            assert_eq!(moves(&even(&servers)), [WITHIN; 4], "{servers:?}");
        }
    }

    #[test]
    fn shares_are_proportional_to_weights_up_to_the_limits() {
        assert_eq!(shares(90.0, &[(1.0, None), (2.0, None)]), [30.0, 60.0]);
        assert_eq!(shares(90.0, &[(1.0, Some(10.0)), (1.0, None), (1.0, Some(100.0))]), [10.0, 40.0, 40.0]);
        assert_eq!(shares(90.0, &[(0.0, Some(0.0)), (1.0, Some(20.0))]), [0.0, 20.0]);
        assert_eq!(shares(0.0, &[(1.0, None)]), [0.0]);
    }

    #[test]
    fn machine_load_alone_causes_no_move() {
        let mut nodes = even(&[100, 100]);
        nodes[0].low = 50.0;
        nodes[1].high = 150.0;
        assert_eq!(moves(&nodes), [WITHIN; 2]);
    }

    #[test]
    fn a_source_with_too_few_servers_reports_that_as_the_reason() {
        let config = Config::default();
        let nodes = even(&[12, 0]);
        assert_eq!(quota(&nodes, NodeId(0), &config), Err(Idle::TooFewServers));
    }
}
