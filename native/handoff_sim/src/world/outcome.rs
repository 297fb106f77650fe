//! The result of a run: violations, reports, and the true gaps and moves.

use handoff_core::time::Micros;
use handoff_core::{Ended, Goal, Reason, Report};

use crate::checker::{Rule, Violation};
use crate::servers::Place;
use crate::world::World;

/// One drain of a run.
#[derive(Debug, Clone)]
pub struct DrainOutcome {
    pub source: String,
    /// The goal of the drain.
    pub goal: Goal,
    pub began: Micros,
    pub took: Micros,
    /// The servers on each node at the beginning of a rebalance, in the scenario's order; `None` for a node
    /// that does not run. Empty for a drain.
    pub loads: Vec<Option<u32>>,
    /// What the engine reports; `None` where a baseline decided.
    pub report: Option<Report>,
}

#[derive(Debug)]
pub struct Outcome {
    pub name: String,
    pub seed: u64,
    pub broken: Vec<Violation>,
    /// The drains in the order of their starts.
    pub drains: Vec<DrainOutcome>,
    /// Sorted gaps in microseconds, from the start of the attempt that stopped a server to the answer that
    /// the server runs elsewhere.
    pub gaps: Vec<u64>,
    /// How often each server was moved.
    pub moves: Vec<u32>,
    /// Servers on each node at the end, in the scenario's order.
    pub loads: Vec<u32>,
    /// Servers that run nowhere at the end.
    pub down: u64,
    /// The number of reservations that could not be cleared because the store refused.
    pub unreleased: u64,
    /// The number of attempts that a target refused because it was full.
    pub refused_full: u64,
    pub events: u64,
    /// A hash of all events: equal for equal runs.
    pub digest: u64,
    /// The trace of all drains, if it was kept.
    pub trace: Vec<String>,
}

impl Outcome {
    pub fn moved(&self) -> u64 {
        self.reports().map(|report| report.moved).sum()
    }

    /// The number of servers that the drains had to move.
    pub fn total(&self) -> u64 {
        self.reports().map(|report| report.total).sum()
    }

    /// Servers left for this reason.
    pub fn left(&self, reason: Reason) -> u64 {
        self.reports().map(|report| report.left.get(&reason).copied().unwrap_or(0)).sum()
    }

    /// The quantile of the gaps, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run fit")]
    pub fn gap_ms(&self, percent: usize) -> f64 {
        let rank = (self.gaps.len() * percent).div_ceil(100).max(1);
        self.gaps.get(rank - 1).map_or(0.0, |gap| *gap as f64 / 1_000.0)
    }

    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.drains.iter().filter_map(|drain| drain.report.as_ref())
    }
}

impl World {
    pub(super) fn into_outcome(mut self) -> Outcome {
        let now = self.now();
        let mut drains = Vec::new();
        let mut broken = std::mem::take(&mut self.broken);
        let clean = self.scenario.is_clean();
        for drain in &mut self.drains {
            let shared = &self.groups[drain.group].shared;
            let report = drain.decider.engine().map(|engine| engine.report(now, shared));
            if clean && let Some(report) = &report {
                let late = report.left.keys().find(|reason| match reason {
                    Reason::NoTarget | Reason::StickyLocked | Reason::Capacity | Reason::ModuleMissing => false,
                    Reason::Deadline => report.ended != Some(Ended::Deadline),
                    _ => true,
                });
                if let Some(reason) = late {
                    let detail = format!("servers left as {reason:?} though nothing went wrong: {report:?}");
                    drain.checker.breach(now, Rule::Complete, detail);
                }
            }
            broken.append(&mut drain.checker.broken);
            let took = drain.over.unwrap_or(now).since(drain.checker.started());
            let (source, began) = (drain.checker.source().to_owned(), drain.checker.started());
            let loads = std::mem::take(&mut drain.loads);
            drains.push(DrainOutcome { source, goal: drain.goal, began, took, loads, report });
        }
        // Other nodes take over what a source reserved that has ended.
        let owned = |by: Option<usize>| by.is_none_or(|drain| !self.drains[drain].dead);
        let reserved = (0..).zip(self.servers.all()).filter(|(_, server)| server.place() == Place::Reserved);
        let reserved = reserved.filter(|(index, server)| owned(server.told_by) && !self.unreleased.contains(index));
        let reserved = reserved.count();
        if self.is_engine() && reserved > 0 {
            let detail =
                format!("{reserved} reservations are left, beside {} refused by the store", self.unreleased.len());
            broken.push(Violation { at: now, rule: Rule::Displaced, detail });
        }
        self.gaps.sort_unstable();
        let down = self.servers.all().iter().filter(|server| !matches!(server.place(), Place::On(_))).count();
        Outcome {
            name: self.scenario.name,
            seed: self.scenario.seed,
            broken,
            drains,
            gaps: self.gaps,
            moves: self.servers.all().iter().map(|server| server.moves).collect(),
            loads: self.cluster.loads().map(Option::unwrap_or_default).collect(),
            down: down as u64,
            unreleased: self.unreleased.len() as u64,
            refused_full: self.refused_full,
            events: self.events,
            digest: self.digest,
            trace: self.trace.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::named::Named;
    use crate::scenario::{Faults, Scenario, random};
    use crate::world::{Due, START, Step};

    /// The rules that a drain with these faults breaks, whose first attempt, on server 0, goes to `step` at once.
    fn broken_by(faults: Faults, step: &Step) -> Vec<Rule> {
        let named = Named { weather: &[], ..*Named::find("slow-store").expect("its name") };
        let mut world = World::new(Scenario { faults, ..named.scenario(1) }, false);
        while let Some(due) = world.next_due() {
            let first =
                |token: usize| world.attempts[token].as_ref().is_some_and(|at| (at.server, at.number) == (0, 1));
            match due {
                Due::Attempt(token, Step::Begin) if first(token) => world.happen(Due::Attempt(token, step.clone())),
                due => world.happen(due),
            }
        }
        world.into_outcome().broken.iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_server_that_is_left_although_nothing_went_wrong_is_reported() {
        assert_eq!(broken_by(Faults::default(), &Step::Begin), []);
        assert_eq!(broken_by(Faults::default(), &Step::GiveUp(handoff_core::Outcome::Gone)), [Rule::Complete]);
    }

    #[test]
    fn a_server_that_is_stopped_while_its_state_is_nowhere_in_the_store_is_reported() {
        for (step, stop_fails) in [(Step::Written(false), 0.0), (Step::Terminated, 1.0)] {
            let reported = |unsynced| {
                broken_by(Faults { unsynced, stop_fails, ..Faults::default() }, &step).contains(&Rule::State)
            };
            assert_eq!((reported(0.0), reported(1.0)), (false, true), "{step:?}");
        }
    }

    #[test]
    fn a_reservation_that_the_store_refused_to_clear_excuses_no_other() {
        let reserved = |refused: u32| {
            let mut world = World::new(random::scenario(1), false);
            world.servers.stop(0, true, START, &mut world.cluster);
            world.unreleased.insert(refused);
            world.into_outcome().broken
        };
        assert_eq!(reserved(0), []);
        assert!(matches!(reserved(1)[..], [Violation { rule: Rule::Displaced, .. }]));
    }
}
