//! Runs many random scenarios, and reports those that violate a guarantee.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use crate::checker::{Rule, Violation};
use crate::rebalance;
use crate::scenario::{Scenario, random};
use crate::world::{self, DrainOutcome, Outcome};

/// The results of a series of seeds.
#[derive(Debug, Default)]
pub struct Checked {
    /// The command-line option that shows a scenario of the series.
    pub option: &'static str,
    pub runs: u64,
    /// How many drains there were in them.
    pub drains: u64,
    /// How many servers these drains had to move.
    pub servers: u64,
    pub moved: u64,
    /// How many scenarios violated a guarantee.
    pub broken: u64,
    /// The seeds of these scenarios, with the first violation of each rule.
    pub failed: BTreeMap<Rule, Vec<(u64, Violation)>>,
}

/// The kind of scenario that a seed generates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Drains,
    Rebalances,
}

impl Family {
    /// The scenario of a seed.
    pub fn scenario(self, seed: u64) -> Scenario {
        match self {
            Family::Drains => random::scenario(seed),
            Family::Rebalances => rebalance::scenario(seed),
        }
    }

    /// Runs the scenario of a seed, including the checks over the whole run. `run` is [`world::run`], or
    /// keeps the trace.
    pub fn run(self, seed: u64, run: fn(Scenario) -> Outcome) -> Outcome {
        let scenario = self.scenario(seed);
        let mut outcome = run(scenario.clone());
        if self == Family::Rebalances {
            outcome.broken.extend(rebalance::broken(&scenario, &outcome));
        }
        outcome
    }

    /// The command-line option that shows a scenario of this kind.
    fn option(self) -> &'static str {
        match self {
            Family::Drains => "--seed",
            Family::Rebalances => "--rebalance-seed",
        }
    }
}

/// Runs `runs` seeds from `first` on.
pub fn check(family: Family, first: u64, runs: u64) -> Checked {
    check_with(family, first, runs, world::run)
}

fn check_with(family: Family, first: u64, runs: u64, run: fn(Scenario) -> Outcome) -> Checked {
    let mut checked = Checked { runs, option: family.option(), ..Checked::default() };
    for seed in first..first.saturating_add(runs) {
        let Ok(outcome) = catch_unwind(|| family.run(seed, run)) else {
            checked.broken += 1;
            let violation = Violation { at: world::START, rule: Rule::Panic, detail: "a panic, printed above".into() };
            checked.failed.entry(Rule::Panic).or_default().push((seed, violation));
            continue;
        };
        checked.drains += outcome.drains.len() as u64;
        checked.servers += outcome.total();
        checked.moved += outcome.moved();
        checked.broken += u64::from(!outcome.broken.is_empty());
        for violation in outcome.broken {
            let seeds = checked.failed.entry(violation.rule).or_default();
            if seeds.last().is_none_or(|(last, _)| *last != seed) {
                seeds.push((seed, violation));
            }
        }
    }
    checked
}

impl Checked {
    /// The failed seeds by rule, a few of each, and the command that shows one.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{} scenarios, {} drains, {} of {} servers moved, {} scenarios broke a promise\n",
            self.runs, self.drains, self.moved, self.servers, self.broken
        );
        for (rule, failed) in &self.failed {
            text += &format!("{rule:?}: {} seeds\n", failed.len());
            for (seed, violation) in failed.iter().take(5) {
                text += &format!(
                    "  {}\n    cargo run --release -p handoff_sim -- {} {seed}\n",
                    violation.detail, self.option
                );
            }
        }
        text
    }
}

/// Describes a run: its scenario, its result, the violations and, if it was kept, the trace.
pub fn describe(outcome: &Outcome, lines: usize) -> String {
    let skipped = outcome.trace.len().saturating_sub(lines);
    let mut text = String::new();
    if skipped > 0 {
        text += &format!("... {skipped} lines before (--lines N shows more)\n");
    }
    for line in outcome.trace.iter().skip(skipped) {
        text += &format!("{line}\n");
    }
    for drain in &outcome.drains {
        text += &format!("{} after {} ms: {}\n", drain.source, drain.took.as_millis(), summary(drain));
    }
    text += &format!(
        "{} (seed {}): {} events, digest {:016x}, {} down at the end, {} refused as full\n",
        outcome.name, outcome.seed, outcome.events, outcome.digest, outcome.down, outcome.refused_full
    );
    for violation in &outcome.broken {
        let ms = violation.at.since(world::START).as_millis();
        text += &format!("BROKEN {:?} at {ms} ms: {}\n", violation.rule, violation.detail);
    }
    text
}

/// A report without its list of targets, which may have a thousand lines.
fn summary(drain: &DrainOutcome) -> String {
    let Some(report) = &drain.report else {
        return "no report".into();
    };
    format!(
        "{:?}: moved {} of {} to {} nodes, left {:?}, {} attempts, {} failures, at most {} in flight, gap {:?}",
        report.ended,
        report.moved,
        report.total,
        report.targets.len(),
        report.left,
        report.attempts,
        report.failures,
        report.concurrency.highest,
        report.gap
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_breaks_a_rule_and_the_next_seeds_run() {
        let run = |scenario: Scenario| {
            assert_ne!(scenario.seed, 2, "on purpose");
            world::run(scenario)
        };
        let checked = check_with(Family::Drains, 1, 3, run);
        assert_eq!((checked.runs, checked.broken), (3, 1));
        let seeds: Vec<u64> = checked.failed[&Rule::Panic].iter().map(|(seed, _)| *seed).collect();
        assert_eq!(seeds, [2]);
        assert!(checked.drains >= 2 && checked.describe().contains("Panic: 1 seeds"));
    }
}
