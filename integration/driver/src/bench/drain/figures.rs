//! Computes the figures of the table from the demo's figures of several rounds. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contender::Contender;
use super::shape::Shape;
use crate::cpu::Cpu;
use crate::quantiles::{Quantiles, median};
use crate::report::{DrainReport, ModeReport, STORE_OPS};

/// One store, and everything that was measured on it.
#[derive(Debug, Serialize)]
pub struct OnStore {
    pub store: Shape,
    /// What was measured, in that order.
    pub rows: Vec<Row>,
}

/// One way to drain. Durations are in milliseconds, each figure the median of its rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The name of the way to drain.
    pub name: String,
    /// Servers that ran elsewhere before their node was gone, in the last round.
    pub moved: usize,
    /// Servers on the node, in the last round.
    pub total: usize,
    /// Servers that ran nowhere when the time limit for being back had passed, in the worst round. No gap
    /// includes them.
    pub not_back: usize,
    /// The median of the gaps from `terminate/2` to the next `init`.
    pub gap_p50_ms: f64,
    /// The 99th percentile of the gaps.
    pub gap_p99_ms: f64,
    /// The longest gap.
    pub gap_max_ms: f64,
    /// From SIGTERM until nothing ran on the node.
    pub drain_ms: f64,
    /// Servers moved per second of the drain.
    pub per_second: f64,
    /// Requests at the store at the same time, on average.
    pub at_store_mean: f64,
    /// The most requests at the store at the same time.
    pub at_store_max: f64,
    /// Requests to the store for each moved server, from SIGTERM until the clients stop.
    pub requests_per_move: f64,
    /// Servers by target, in the last round.
    pub targets: BTreeMap<String, usize>,
    /// The p99 of the gaps, divided by that of the stream with the smallest one; `None` without streams.
    pub p99_ratio: Option<f64>,
    /// The time of the drain, divided by that of the fastest stream; `None` without streams.
    pub drain_ratio: Option<f64>,
    /// The p99 of the worst round, divided in the same way.
    pub p99_worst_ratio: Option<f64>,
    /// The time of the worst round, divided in the same way.
    pub drain_worst_ratio: Option<f64>,
    /// Processor time of 1,000 moves, in milliseconds.
    pub cpu_per_1000: Cpu,
    /// The processor time of all nodes, divided by that of the stream with the least.
    pub cpu_ratio: Option<f64>,
    /// The violated guarantees.
    pub broken: Vec<String>,
    /// The notes of all rounds; without those of streams, which always leave servers to later sweeps.
    pub notes: Vec<String>,
}

/// The figures of one store.
pub fn on_store(store: Shape, measured: &[(Contender, Vec<ModeReport>)]) -> OnStore {
    let mut rows: Vec<(Contender, Row)> = measured.iter().map(|(who, rounds)| (*who, row(*who, rounds))).collect();
    let best = |of: fn(&Row) -> f64| {
        let streams = rows.iter().filter(|(who, _)| matches!(who, Contender::Stream(_)));
        streams.map(|(_, row)| of(row)).filter(|ms| *ms > 0.0).reduce(f64::min)
    };
    let (best_p99, best_drain) = (best(|row| row.gap_p99_ms), best(|row| row.drain_ms));
    let best_cpu = best(|row| row.cpu_per_1000.total());
    for ((_, row), (_, rounds)) in rows.iter_mut().zip(measured) {
        let worst = |figure: fn(&ModeReport) -> f64| rounds.iter().map(figure).fold(0.0, f64::max);
        row.p99_ratio = best_p99.map(|best| row.gap_p99_ms / best);
        row.p99_worst_ratio = best_p99.map(|best| worst(gap_p99_ms) / best);
        row.drain_ratio = best_drain.map(|best| row.drain_ms / best);
        row.drain_worst_ratio = best_drain.map(|best| worst(drain_ms) / best);
        row.cpu_ratio = best_cpu.map(|best| row.cpu_per_1000.total() / best);
    }
    OnStore { store, rows: rows.into_iter().map(|(_, row)| row).collect() }
}

fn row(who: Contender, rounds: &[ModeReport]) -> Row {
    let of = |figure: fn(&ModeReport) -> f64| median(rounds.iter().map(figure).collect());
    let shown = rounds.last().and_then(last);
    let notes = rounds.iter().filter(|_| !matches!(who, Contender::Stream(_)));
    let cpu = |figure: fn(&Cpu) -> f64| {
        median(rounds.iter().map(|round| figure(&round.cpu_ms) * 1_000.0 / moved(round).max(1.0)).collect())
    };
    Row {
        name: who.name(),
        moved: shown.map_or(0, |drain| drain.moved),
        total: shown.map_or(0, |drain| drain.total),
        not_back: rounds.iter().map(|round| round.unreachable).max().unwrap_or(0),
        gap_p50_ms: of(|round| gaps(round).p50.unwrap_or(0.0)),
        gap_p99_ms: of(gap_p99_ms),
        gap_max_ms: of(|round| gaps(round).max.unwrap_or(0.0)),
        drain_ms: of(drain_ms),
        per_second: of(per_second),
        at_store_mean: of(|round| round.store_load.map_or(0.0, |load| load.mean)),
        at_store_max: of(at_store_max),
        requests_per_move: of(|round| requests(round) / moved(round).max(1.0)),
        targets: shown.map(|drain| drain.targets.clone()).unwrap_or_default(),
        p99_ratio: None,
        drain_ratio: None,
        p99_worst_ratio: None,
        drain_worst_ratio: None,
        cpu_per_1000: Cpu {
            sources: cpu(|cpu| cpu.sources),
            targets: cpu(|cpu| cpu.targets),
            clients: cpu(|cpu| cpu.clients),
        },
        cpu_ratio: None,
        broken: rounds.iter().flat_map(|round| broken(who, round)).collect(),
        notes: notes.flat_map(|round| round.notes.clone()).collect(),
    }
}

/// Streams leave servers stopped and reserved for longer than the bench waits, which their row shows.
fn broken(who: Contender, round: &ModeReport) -> Vec<String> {
    if matches!(who, Contender::Stream(_)) { round.broken() } else { round.broken_in(who.variant()) }
}

/// Only the last drain of a round is measured.
fn last(round: &ModeReport) -> Option<&DrainReport> {
    round.drains.last()
}

fn gaps(round: &ModeReport) -> Quantiles {
    last(round).map(|drain| drain.gap_ms.clone()).unwrap_or_default()
}

fn gap_p99_ms(round: &ModeReport) -> f64 {
    gaps(round).p99.unwrap_or(0.0)
}

fn drain_ms(round: &ModeReport) -> f64 {
    last(round).map_or(0.0, |drain| drain.drain_ms)
}

fn per_second(round: &ModeReport) -> f64 {
    if drain_ms(round) > 0.0 { moved(round) * 1_000.0 / drain_ms(round) } else { 0.0 }
}

fn moved(round: &ModeReport) -> f64 {
    count(last(round).map_or(0, |drain| drain.moved))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn requests(round: &ModeReport) -> f64 {
    STORE_OPS.iter().filter_map(|kind| round.store_ops.as_ref()?.get(*kind)).sum::<u64>() as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn count(servers: usize) -> f64 {
    servers as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn at_store_max(round: &ModeReport) -> f64 {
    round.store_load.map_or(0.0, |load| load.max as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;
    use crate::variant::Executor;

    fn round(p99: f64, drain_ms: f64) -> ModeReport {
        let (_, mut round) = fixture::report().modes.remove(2);
        let drain = &mut round.drains[0];
        (drain.gap_ms.p99, drain.drain_ms) = (Some(p99), drain_ms);
        round
    }

    #[test]
    fn each_ratio_compares_with_the_stream_that_is_best_in_that_figure() {
        let measured = [
            (Contender::Graceful, vec![round(6_000.0, 100.0)]),
            (Contender::Stream(8), vec![round(40.0, 2_000.0)]),
            (Contender::Stream(50), vec![round(200.0, 1_000.0)]),
            (Contender::Handoff(Executor::Embedded), vec![round(50.0, 1_100.0)]),
        ];
        let ratios: Vec<_> = on_store(Shape::Slots, &measured)
            .rows
            .into_iter()
            .map(|row| (row.p99_ratio.unwrap(), row.drain_ratio.unwrap()))
            .collect();
        assert_eq!(ratios, [(150.0, 0.1), (1.0, 2.0), (5.0, 1.0), (1.25, 1.1)]);
    }

    #[test]
    fn a_store_without_streams_has_no_ratios() {
        let rows = on_store(Shape::Slots, &[(Contender::Graceful, vec![round(6_000.0, 100.0)])]).rows;
        assert_eq!((rows[0].p99_ratio, rows[0].drain_ratio), (None, None));
    }

    #[test]
    fn figures_are_medians_and_violations_of_all_rounds_are_kept() {
        let mut lossy = round(90.0, 500.0);
        (lossy.lost_increments, lossy.unreachable) = (2, 4);
        let rounds = vec![round(10.0, 400.0), lossy, round(20.0, 1_000.0)];
        let row = &on_store(Shape::Latency, &[(Contender::Stream(8), rounds)]).rows[0];
        assert_eq!((row.gap_p99_ms, row.drain_ms, row.per_second), (20.0, 500.0, 200.0));
        assert_eq!(row.not_back, 4);
        assert_eq!((row.drain_ratio, row.drain_worst_ratio), (Some(1.0), Some(2.0)));
        assert_eq!(row.broken, ["2 acknowledged increments are lost"]);
    }

    #[test]
    fn servers_of_ours_that_run_nowhere_and_drains_of_another_executor_are_violations() {
        let mut lossy = round(90.0, 500.0);
        lossy.unreachable = 4;
        lossy.notes.push("old1: a note".into());
        let measured = [(Contender::Stream(8), vec![lossy.clone()]), (Contender::Handoff(Executor::Node), vec![lossy])];
        let rows = on_store(Shape::Latency, &measured).rows;
        assert_eq!((rows[0].broken.len(), rows[0].notes.len()), (0, 0));
        assert_eq!(rows[1].broken, ["4 servers do not answer", "embedded decided in 1 drains"]);
        assert_eq!(rows[1].notes, ["old1: a note"]);
    }
}
