//! The latest drains that have ended, and the latest refusals.
//!
//! Guarantee: keeps [`KEPT`] of each. Texts and lists are cut, so that no peer can make the history grow.

use std::collections::{BTreeMap, VecDeque};

use handoff_core::time::Micros;
use handoff_core::{Reason, Report};
use serde::{Deserialize, Serialize};

use super::info::Gaps;

const KEPT: usize = 20;
/// Targets that are listed by name. The other targets are added up.
const TARGETS: usize = 50;
const TEXT: usize = 300;

/// A drain that this node coordinated, or lost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndedDrain {
    /// Counts the drains that have ended. Distinguishes two drains with equal fields.
    pub number: u64,
    pub node: String,
    pub supervisor: String,
    /// `drain` or `rebalance`.
    #[serde(default)]
    pub goal: String,
    /// Why a rebalance moved nothing, or stopped before the excess was moved.
    #[serde(default)]
    pub idle: Option<String>,
    /// `done`, `deadline`, `failures` or `cancelled`; or why this node did not see the end, such as
    /// `peer_down`.
    pub ended: String,
    pub ago_s: u64,
    /// Servers that were to move ([`Report::to_move`]).
    pub total: u64,
    pub moved: u64,
    /// Servers that were not moved, by reason.
    pub left: BTreeMap<String, u64>,
    pub retried: u64,
    pub attempts: u64,
    pub failures: u64,
    pub duration_ms: u64,
    #[serde(flatten)]
    pub gaps: Gaps,
    /// Servers moved, by target.
    pub targets: BTreeMap<String, u64>,
    /// The most attempts in flight at any time.
    pub highest: u32,
    /// The limit of attempts in flight at the end.
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub node: String,
    /// The supervisor, for requests about a drain.
    pub supervisor: Option<String>,
    pub why: String,
    pub ago_s: u64,
}

#[derive(Debug, Default)]
pub(super) struct History {
    ended: VecDeque<(Micros, EndedDrain)>,
    refused: VecDeque<(Micros, Refusal)>,
    count: u64,
}

impl History {
    pub(super) fn add_ended(&mut self, now: Micros, mut drain: EndedDrain) {
        self.count += 1;
        drain.number = self.count;
        cut(&mut drain.supervisor);
        push(&mut self.ended, now, drain);
    }

    pub(super) fn add_refused(&mut self, now: Micros, node: &str, supervisor: Option<&str>, why: String) {
        let mut refusal = Refusal { node: node.to_owned(), supervisor: supervisor.map(str::to_owned), why, ago_s: 0 };
        cut(&mut refusal.why);
        refusal.supervisor.as_mut().map(cut);
        push(&mut self.refused, now, refusal);
    }

    pub(super) fn ended(&self, now: Micros) -> Vec<EndedDrain> {
        let aged = |(at, drain): &(Micros, EndedDrain)| EndedDrain { ago_s: seconds(now, *at), ..drain.clone() };
        self.ended.iter().rev().map(aged).collect()
    }

    pub(super) fn refused(&self, now: Micros) -> Vec<Refusal> {
        let aged = |(at, refusal): &(Micros, Refusal)| Refusal { ago_s: seconds(now, *at), ..refusal.clone() };
        self.refused.iter().rev().map(aged).collect()
    }
}

impl EndedDrain {
    /// The entry of a report. The caller fills in the node and the gaps.
    pub(super) fn of(report: &Report) -> EndedDrain {
        let mut by_count: Vec<(String, u64)> =
            report.targets.iter().map(|(name, count)| (name.to_string(), *count)).collect();
        by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let others = by_count.split_off(by_count.len().min(TARGETS));
        if !others.is_empty() {
            let count = others.iter().map(|(_, count)| count).sum();
            by_count.push((format!("{} other nodes", others.len()), count));
        }
        // Servers that the node keeps as its share were never meant to move.
        let left = report.left.iter().filter(|(reason, _)| **reason != Reason::Kept);
        EndedDrain {
            idle: report.balance.as_ref().and_then(|balance| balance.idle).map(|idle| idle.name().to_owned()),
            ended: report.ended.map_or("unknown", handoff_core::Ended::name).to_owned(),
            total: report.to_move(),
            moved: report.moved,
            left: left.map(|(reason, count)| (reason.name().to_owned(), *count)).collect(),
            retried: report.retried,
            attempts: report.attempts,
            failures: report.failures,
            duration_ms: report.duration.as_millis(),
            gaps: Gaps { gap_us: report.gap, gaps: Vec::new() },
            targets: by_count.into_iter().collect(),
            highest: report.concurrency.highest,
            limit: report.concurrency.last,
            ..EndedDrain::default()
        }
    }
}

fn push<T>(queue: &mut VecDeque<(Micros, T)>, now: Micros, item: T) {
    if queue.len() == KEPT {
        queue.pop_front();
    }
    queue.push_back((now, item));
}

fn seconds(now: Micros, at: Micros) -> u64 {
    now.since(at).as_millis() / 1_000
}

fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(TEXT) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Micros = |seconds| Micros::from_millis(seconds * 1_000);

    #[test]
    fn a_peer_that_is_refused_without_end_fills_a_list_of_twenty_with_short_texts() {
        let mut history = History::default();
        (0..100).for_each(|at| history.add_refused(S(at), "a@h", Some("é".repeat(1_000).as_str()), "é".repeat(1_000)));
        let refused = history.refused(S(100));
        assert_eq!((refused.len(), refused[0].ago_s, refused[19].ago_s), (KEPT, 1, 20));
        assert_eq!(refused[0].why.chars().count(), TEXT + 1);
        assert_eq!(refused[0].supervisor.as_deref().map(|name| name.chars().count()), Some(TEXT + 1));
    }

    #[test]
    fn all_targets_but_the_fifty_fullest_are_added_up() {
        let target = |n: u64| (format!("n{n:03}@h").into(), n);
        let report = Report { targets: (1..=60).map(target).collect(), ..empty() };
        let drain = EndedDrain::of(&report);
        assert_eq!((drain.targets.len(), drain.targets["10 other nodes"]), (51, 55));
        assert_eq!(drain.targets.values().sum::<u64>(), 60 * 61 / 2);
    }

    #[test]
    fn drains_are_numbered_and_listed_newest_first() {
        let mut history = History::default();
        (0..30).for_each(|at| history.add_ended(S(at), EndedDrain::of(&empty())));
        let ended = history.ended(S(60));
        assert_eq!((ended.len(), ended[0].number, ended[0].ago_s, ended[19].number), (KEPT, 30, 31, 11));
    }

    fn empty() -> Report {
        Report {
            total: 0,
            moved: 0,
            left: BTreeMap::new(),
            retried: 0,
            gap: handoff_core::quantiles::Summary::default(),
            duration: Micros::ZERO,
            targets: BTreeMap::new(),
            concurrency: handoff_core::AtATime::default(),
            learnt: None,
            attempts: 0,
            failures: 0,
            ended: None,
            balance: None,
        }
    }
}
