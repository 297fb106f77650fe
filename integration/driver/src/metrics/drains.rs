//! The figures of each node that was told to stop, and the time that all of them took.

use std::collections::BTreeMap;

use super::observed::Observed;
use crate::history::{Drain, Key, Life, Move, NodeId};
use crate::quantiles::{Quantiles, millis};
use crate::report::DrainReport;

pub(super) fn figures(
    observed: &Observed,
    lives: &BTreeMap<Key, Vec<Life>>,
    moves: &[Move],
    drain: &Drain,
) -> DrainReport {
    // Servers that ran there when the node was told to stop, or started there later: all had to be moved.
    let on_it = |life: &&Life| {
        let ran = life.init_us <= drain.gone_us && life.end_us.is_none_or(|end_us| end_us >= drain.sigterm_us);
        life.node == drain.node && ran
    };
    let ends: Vec<u64> =
        lives.values().flatten().filter(on_it).map(|life| life.end_us.unwrap_or(drain.gone_us)).collect();

    let away: Vec<&Move> =
        moves.iter().filter(|step| step.from == drain.node && step.stopped_us >= drain.sigterm_us).collect();
    let moved: Vec<&Move> =
        away.iter().filter(|step| step.to != drain.node && step.started_us <= drain.gone_us).copied().collect();
    let done_us =
        moved.iter().map(|step| step.started_us).chain(ends.iter().copied()).max().unwrap_or(drain.sigterm_us);

    let could_be_target = |id: NodeId| {
        let node = &observed.nodes[id.0];
        // The node had ended already, or was stopping at the same time.
        let leaving = observed.drains.iter().any(|other| other.node == id && other.sigterm_us <= drain.gone_us);
        node.is_app && id != drain.node && !leaving && node.up_us.is_some_and(|up_us| up_us <= drain.sigterm_us)
    };
    let mut targets: BTreeMap<String, usize> = (0..observed.nodes.len())
        .map(NodeId)
        .filter(|&id| could_be_target(id))
        .map(|id| (observed.nodes[id.0].label.clone(), 0))
        .collect();
    for step in &away {
        *targets.entry(observed.nodes[step.to.0].label.clone()).or_default() += 1;
    }

    DrainReport {
        node: observed.nodes[drain.node.0].label.clone(),
        total: ends.len(),
        moved: moved.len(),
        left: ends.len().saturating_sub(moved.len()),
        gap_ms: Quantiles::of_micros(away.iter().map(|step| step.gap_us()).collect()),
        drain_ms: millis(done_us.saturating_sub(drain.sigterm_us)),
        shutdown_ms: millis(drain.gone_us.saturating_sub(drain.sigterm_us)),
        targets,
    }
}

/// The time in which some node was draining: overlapping drains count once.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds that came from microseconds")]
pub(super) fn busy_us(drains: &[Drain], figures: &[DrainReport]) -> u64 {
    let mut spans: Vec<(u64, u64)> = drains
        .iter()
        .zip(figures)
        .map(|(drain, of)| (drain.sigterm_us, drain.sigterm_us + (of.drain_ms * 1_000.0).round() as u64))
        .collect();
    spans.sort_unstable();
    let mut until = 0;
    spans.into_iter().fold(0, |busy, (from, to)| {
        let new = to.saturating_sub(from.max(until));
        until = until.max(to);
        busy + new
    })
}
