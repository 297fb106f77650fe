//! Computes the figures of one mode from what was recorded. Pure: the same observations give the same figures.

mod drains;
mod observed;

use std::collections::BTreeMap;

use crate::beam::commands::{CallTime, Calls};
use crate::history::{Drain, Key, Life, Move, NodeId, double_owners, lives, moves};
use crate::kept::floor;
use crate::quantiles::{Quantiles, millis};
use crate::report::{DrainReport, GapPoint, ModeReport, NodeReport, ShareLine};

pub use observed::{Observed, ObservedNode};

/// The figures of one mode, except those that only its run knows (store operations, notes).
pub fn figures(observed: &Observed) -> ModeReport {
    let lives = lives(observed.records, observed.drains);
    let moves = moves(&lives);
    let drains: Vec<DrainReport> =
        observed.drains.iter().map(|drain| drains::figures(observed, &lives, &moves, drain)).collect();
    let (lost_increments, extra_increments) = increments(observed, &lives);
    let (call_ms_draining, call_ms_otherwise) = call_times(observed.calls, observed.drains);
    let first_sigterm_us = observed.drains.first().map_or(observed.began_us, |drain| drain.sigterm_us);

    ModeReport {
        total: drains.iter().map(|drain| drain.total).sum(),
        moved: drains.iter().map(|drain| drain.moved).sum(),
        left: drains.iter().map(|drain| drain.left).sum(),
        gap_ms: Quantiles::of_micros(moves.iter().map(Move::gap_us).collect()),
        drain_ms: millis(drains::busy_us(observed.drains, &drains)),
        recovery_ms: observed.all_back.then(|| {
            millis(moves.iter().map(|step| step.started_us.saturating_sub(first_sigterm_us)).max().unwrap_or(0))
        }),
        targets: summed(drains.iter().map(|drain| &drain.targets)),
        final_share: final_share(observed),
        calls: observed.calls.total(),
        failed_calls: observed.calls.failed(),
        failed_by: observed
            .calls
            .outcomes
            .iter()
            .filter(|(how, _)| *how != "ok")
            .map(|(how, &n)| (how.clone(), n))
            .collect(),
        lost_increments,
        extra_increments,
        double_owners: double_owners(&lives),
        moves_per_server: ratio(moves.len(), observed.servers),
        unreachable: observed.counters.iter().filter(|counter| counter.node.is_none()).count(),
        altered_states: observed.counters.iter().filter(|counter| !counter.intact).count(),
        call_ms_draining,
        call_ms_otherwise,
        nodes: nodes(observed, &lives),
        drains,
        gaps: moves
            .iter()
            .map(|step| GapPoint {
                at_ms: millis(step.stopped_us.saturating_sub(first_sigterm_us)),
                gap_ms: millis(step.gap_us()),
            })
            .collect(),
        shares: share_lines(observed, &lives, first_sigterm_us),
        ..ModeReport::default()
    }
}

/// How many servers each application node had, from half a second before `from_us` on. A server counts on a node
/// from its `init` there to its end.
fn share_lines(observed: &Observed, lives: &BTreeMap<Key, Vec<Life>>, from_us: u64) -> Vec<ShareLine> {
    let start_us = from_us.saturating_sub(SHARES_BEFORE_US);
    let mut changes: BTreeMap<NodeId, Vec<(u64, bool)>> = BTreeMap::new();
    for life in lives.values().flatten() {
        let of_node = changes.entry(life.node).or_default();
        of_node.push((life.init_us, true));
        of_node.extend(life.end_us.map(|end_us| (end_us, false)));
    }
    let apps = observed.nodes.iter().enumerate().filter(|(_, node)| node.is_app);
    apps.map(|(index, node)| {
        let mut of_node = changes.remove(&NodeId(index)).unwrap_or_default();
        of_node.sort_unstable();
        let mut servers = 0_usize;
        let mut steps: Vec<(f64, usize)> = Vec::new();
        for (at_us, started) in of_node {
            servers = if started { servers + 1 } else { servers.saturating_sub(1) };
            let at_ms = millis(at_us.max(start_us)) - millis(from_us);
            // Everything before the start of the plot becomes one step.
            match steps.last_mut() {
                Some(last) if at_us <= start_us => last.1 = servers,
                _ => steps.push((at_ms, servers)),
            }
        }
        ShareLine { node: node.label.clone(), steps }
    })
    .collect()
}

/// How much time before the deploy a plot of shares shows.
const SHARES_BEFORE_US: u64 = 500_000;

fn nodes(observed: &Observed, lives: &BTreeMap<Key, Vec<Life>>) -> Vec<NodeReport> {
    let started = |index| lives.values().flatten().filter(|life| life.node == NodeId(index)).count();
    let apps = observed.nodes.iter().enumerate().filter(|(_, node)| node.is_app);
    apps.map(|(index, node)| NodeReport {
        node: node.label.clone(),
        elixir: node.elixir.clone(),
        otp: node.otp.clone(),
        started: started(index),
    })
    .collect()
}

/// How long calls took: those that overlapped with the stop of a node, and all others.
fn call_times(calls: &Calls, drains: &[Drain]) -> (Quantiles, Quantiles) {
    let while_draining = |call: &&CallTime| {
        drains.iter().any(|drain| call.at_us <= drain.gone_us && call.at_us + call.took_us >= drain.sigterm_us)
    };
    let (during, otherwise): (Vec<&CallTime>, Vec<&CallTime>) = calls.times.iter().partition(while_draining);
    let quantiles = |calls: Vec<&CallTime>| Quantiles::of_micros(calls.iter().map(|call| call.took_us).collect());
    (quantiles(during), quantiles(otherwise))
}

/// Acknowledged increments that had to be kept and are missing, and increments that no client can have
/// caused. Both are computed for each server and then summed, so that a loss of one server is not offset by a
/// surplus of another.
fn increments(observed: &Observed, lives: &BTreeMap<Key, Vec<Life>>) -> (u64, u64) {
    let of = |by_key: &BTreeMap<Key, u64>, key| by_key.get(&key).copied().unwrap_or(0);
    observed.counters.iter().fold((0, 0), |(lost, extra), counter| {
        let of_one = lives.get(&counter.key).map_or(&[][..], Vec::as_slice);
        let at_least = floor(counter.key, of_one, observed.calls, observed.final_writes);
        let at_most = of(&observed.calls.acknowledged, counter.key) + of(&observed.calls.uncertain, counter.key);
        (lost + at_least.saturating_sub(counter.value), extra + counter.value.saturating_sub(at_most))
    })
}

fn final_share(observed: &Observed) -> BTreeMap<String, usize> {
    let gone = |index: usize| observed.drains.iter().any(|drain| drain.node == NodeId(index));
    let mut share: BTreeMap<String, usize> = BTreeMap::new();
    for (index, node) in observed.nodes.iter().enumerate().filter(|(index, node)| node.is_app && !gone(*index)) {
        let here = observed.counters.iter().filter(|counter| counter.node.as_deref() == Some(&node.name)).count();
        share.insert(observed.nodes[index].label.clone(), here);
    }
    share
}

fn summed<'a>(counts: impl Iterator<Item = &'a BTreeMap<String, usize>>) -> BTreeMap<String, usize> {
    let mut sum = BTreeMap::new();
    for (label, count) in counts.flatten() {
        *sum.entry(label.clone()).or_default() += count;
    }
    sum
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn ratio(count: usize, of: u32) -> f64 {
    count as f64 / f64::from(of.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beam::commands::Counter;
    use crate::history::{Moment, Record};
    use crate::kept::FinalWrites;

    const OLD: NodeId = NodeId(0);
    const NEW: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    /// A second, in microseconds.
    const S: u64 = 1_000_000;

    fn node(label: &str) -> ObservedNode {
        ObservedNode {
            label: label.into(),
            name: format!("{label}-x@127.0.0.1"),
            is_app: label != "clients",
            elixir: "1.14.0".into(),
            otp: "25".into(),
            up_us: Some(0),
        }
    }

    fn life(key: Key, node: NodeId, init_us: u64, end_us: Option<u64>) -> Vec<Record> {
        let process = format!("<0.{key}.{init_us}>");
        let record = |moment, at_us| Record { node, key, process: process.clone(), moment, at_us, counter: 0 };
        let mut records = vec![record(Moment::Init, init_us)];
        records.extend(end_us.map(|at_us| record(Moment::Terminate, at_us)));
        records
    }

    fn counter(key: Key, value: u64, node: Option<&str>) -> Counter {
        Counter { key, value, node: node.map(|label| format!("{label}-x@127.0.0.1")), intact: true }
    }

    fn with<'a>(records: &'a [Record], drains: &'a [Drain], calls: &'a Calls, counters: &'a [Counter]) -> Observed<'a> {
        let nodes = ["old1", "new1", "old2", "clients"].map(node).to_vec();
        Observed {
            nodes,
            records,
            began_us: 0,
            drains,
            calls,
            counters,
            servers: 3,
            all_back: true,
            final_writes: FinalWrites::Count,
        }
    }

    #[test]
    fn one_drain_has_its_moved_and_left_servers_and_its_targets() {
        // Server 0 is moved, server 1 is found 40 s after its node is gone, server 2 was never there.
        let records = [
            life(0, OLD, S, Some(10 * S)),
            life(0, NEW, 10 * S + 30_000, None),
            life(1, OLD, S, Some(11 * S)),
            life(1, NEW, 52 * S, None),
            life(2, OTHER, S, None),
        ]
        .concat();
        let drains = [Drain { node: OLD, sigterm_us: 9 * S, gone_us: 12 * S }];
        let report = figures(&with(&records, &drains, &Calls::default(), &[]));

        assert_eq!((report.total, report.moved, report.left), (2, 1, 1));
        assert_eq!((report.gap_ms.p50, report.gap_ms.max), (Some(30.0), Some(41_000.0)));
        assert_eq!(report.targets, BTreeMap::from([("new1".into(), 2), ("old2".into(), 0)]));
        // Until the last of its servers had stopped, 2 s after SIGTERM; not until it was found again.
        assert_eq!((report.drain_ms, report.drains[0].shutdown_ms), (2_000.0, 3_000.0));
        assert_eq!(report.recovery_ms, Some(43_000.0));
        assert_eq!(report.moves_per_server, 2.0 / 3.0);
        assert_eq!(report.gaps[1], GapPoint { at_ms: 2_000.0, gap_ms: 41_000.0 });
    }

    #[test]
    fn a_server_moved_twice_belongs_to_two_drains() {
        let records = [
            life(0, OLD, S, Some(10 * S)),
            life(0, OTHER, 10 * S + 20_000, Some(20 * S)),
            life(0, NEW, 20 * S + 40_000, None),
        ]
        .concat();
        let drains = [
            Drain { node: OLD, sigterm_us: 10 * S, gone_us: 11 * S },
            Drain { node: OTHER, sigterm_us: 20 * S, gone_us: 21 * S },
        ];
        let report = figures(&with(&records, &drains, &Calls::default(), &[]));
        assert_eq!((report.total, report.moved, report.gap_ms.count), (2, 2, 2));
        assert_eq!(report.drain_ms, 60.0);
        // A node that ended before the second drain is not a possible target of that drain.
        assert_eq!(report.drains[1].targets, BTreeMap::from([("new1".into(), 1)]));
    }

    #[test]
    fn drains_at_the_same_time_count_once_and_are_no_targets_of_each_other() {
        let records = [
            life(0, OLD, S, Some(10 * S)),
            life(0, NEW, 10 * S + 50_000, None),
            life(1, OTHER, S, Some(11 * S)),
            life(1, NEW, 11 * S + 50_000, None),
        ]
        .concat();
        let drains = [
            Drain { node: OLD, sigterm_us: 10 * S, gone_us: 12 * S },
            Drain { node: OTHER, sigterm_us: 10 * S, gone_us: 13 * S },
        ];
        let report = figures(&with(&records, &drains, &Calls::default(), &[]));
        assert_eq!(report.drain_ms, 1_050.0);
        assert_eq!(report.targets, BTreeMap::from([("new1".into(), 2)]));
    }

    #[test]
    fn a_call_that_began_before_a_drain_and_ended_in_it_belongs_to_it() {
        let call = |at_us, took_us| CallTime { at_us, took_us, answered: true };
        let calls = Calls { times: vec![call(S, 1_000), call(9 * S, 2 * S), call(14 * S, 3_000)], ..Calls::default() };
        let drains = [Drain { node: OLD, sigterm_us: 10 * S, gone_us: 12 * S }];
        let report = figures(&with(&[], &drains, &calls, &[]));
        assert_eq!((report.call_ms_draining.count, report.call_ms_draining.max), (1, Some(2_000.0)));
        assert_eq!((report.call_ms_otherwise.count, report.call_ms_otherwise.max), (2, Some(3.0)));
    }

    #[test]
    fn a_node_that_came_later_is_not_a_possible_target() {
        let records = [life(0, OLD, S, Some(10 * S)), life(0, OTHER, 10 * S + 20_000, None)].concat();
        let drains = [Drain { node: OLD, sigterm_us: 10 * S, gone_us: 11 * S }];
        let calls = Calls::default();
        let mut observed = with(&records, &drains, &calls, &[]);
        observed.nodes[NEW.0].up_us = Some(15 * S);
        assert_eq!(figures(&observed).targets, BTreeMap::from([("old2".into(), 1)]));
    }

    #[test]
    fn a_loss_of_one_server_is_not_offset_by_a_surplus_of_another() {
        let calls = Calls {
            acknowledged: BTreeMap::from([(0, 100), (1, 100), (2, 100)]),
            uncertain: BTreeMap::from([(0, 0), (1, 0), (2, 5)]),
            ..Calls::default()
        };
        // Server 0 lost three, server 1 counted two twice, server 2 applied four of five calls whose answer
        // was lost.
        let counters = [counter(0, 97, Some("new1")), counter(1, 102, Some("new1")), counter(2, 104, Some("old2"))];
        let report = figures(&with(&[], &[], &calls, &counters));
        assert_eq!((report.lost_increments, report.extra_increments), (3, 2));
    }

    #[test]
    fn the_final_share_counts_answering_servers_per_remaining_node() {
        let drains = [Drain { node: OLD, sigterm_us: S, gone_us: 2 * S }];
        let counters = [counter(0, 0, Some("new1")), counter(1, 0, Some("new1")), counter(2, 0, None)];
        let report = figures(&with(&[], &drains, &Calls::default(), &counters));
        assert_eq!(report.final_share, BTreeMap::from([("new1".into(), 2), ("old2".into(), 0)]));
        assert_eq!((report.unreachable, report.altered_states), (1, 0));
    }

    #[test]
    fn an_altered_state_is_counted() {
        let counters = [counter(0, 0, Some("new1")), Counter { intact: false, ..counter(1, 0, Some("new1")) }];
        assert_eq!(figures(&with(&[], &[], &Calls::default(), &counters)).altered_states, 1);
    }

    #[test]
    fn every_application_node_has_its_versions_and_the_number_of_servers_started_there() {
        let records = [life(0, OLD, S, Some(10 * S)), life(0, NEW, 10 * S + 30_000, None)].concat();
        let report = figures(&with(&records, &[], &Calls::default(), &[]));
        let nodes: Vec<_> = report.nodes.iter().map(|of| (of.node.as_str(), of.otp.as_str(), of.started)).collect();
        assert_eq!(nodes, [("old1", "25", 1), ("new1", "25", 1), ("old2", "25", 0)]);
    }

    #[test]
    fn a_server_that_never_came_back_has_no_gap_and_no_recovery() {
        let records = life(0, OLD, S, Some(10 * S));
        let drains = [Drain { node: OLD, sigterm_us: 9 * S, gone_us: 12 * S }];
        let calls = Calls::default();
        let observed = Observed { all_back: false, ..with(&records, &drains, &calls, &[]) };
        let report = figures(&observed);
        assert_eq!((report.total, report.left, report.gap_ms.count, report.recovery_ms), (1, 1, 0, None));
    }

    #[test]
    fn two_owners_at_once_are_reported() {
        let records = [life(0, OLD, S, Some(10 * S)), life(0, NEW, 9 * S, None)].concat();
        let report = figures(&with(&records, &[], &Calls::default(), &[]));
        assert_eq!(report.double_owners, 1);
    }
}
