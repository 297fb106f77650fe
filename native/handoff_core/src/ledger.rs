//! The servers sent to each node since its last report of its load: the difference between that report and
//! the current load.
//!
//! Guarantee: an assignment counts from the start of its attempt until the attempt fails, or until a
//! heartbeat is seen that was written after the server's arrival. Where clocks agree it never counts for a
//! shorter time, so limits are not exceeded by projection. Where clocks differ, the time is shorter by at
//! most the delay of a heartbeat. One ledger may serve several drains. Each drain then sees the assignments
//! of the others, and all project from the newest report that any of them has seen, so that a report and the
//! assignments since then stay together.
//!
//! [`Ledger::assigned`] is for limits. It may include servers that a report already counts;
//! [`Ledger::counted_twice`] returns that number, for balance.

mod overlap;

use std::collections::{HashMap, VecDeque};

use crate::ids::{ModuleId, NodeId};
use crate::time::Micros;
use crate::view::NodeView;

pub use overlap::Count;

/// A node counts its servers before it stamps its heartbeat; on a busy machine up to this much earlier.
const COUNTED_BEFORE_STAMP_MS: i64 = 100;

/// Assignments to one node.
#[derive(Debug, Clone, Default)]
struct Account {
    /// The newest heartbeat received.
    report: Option<NodeView>,
    /// The smallest observed lag of this node's heartbeats behind our clock in milliseconds: the difference
    /// of the two clocks plus the shortest delay.
    least_lag_ms: Option<i64>,
    /// The servers that both the newest heartbeat and this ledger count.
    twice: Vec<(Count, f64)>,
    /// Attempts in flight.
    in_flight: u32,
    /// The servers that a running rebalance leaves on this node.
    leaves: Option<Leaves>,
    /// Servers that running rebalances will send to this node, besides the assigned ones.
    promised: u64,
    /// Running rebalances that began while this node lacked more than the tolerance.
    fillers: u32,
    /// All assignments that did not fail.
    sent: u32,
    /// All assignments since the report, in flight or arrived: the total and the number by module.
    total: u32,
    by_module: HashMap<ModuleId, u32>,
    /// Servers that arrived, oldest first: time (our clock, milliseconds), module, number.
    arrived: VecDeque<(i64, ModuleId, u32)>,
}

/// The servers of a node whose rebalance moves some of them away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Leaves {
    /// Those that have not begun to move.
    pub now: f64,
    /// Those that stay.
    pub at_the_end: f64,
}

/// Assignments to all nodes. See the module documentation.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    accounts: Vec<Account>,
    epoch: u64,
}

impl Ledger {
    /// Counts an attempt to `node` that starts.
    pub fn assign(&mut self, node: NodeId, module: ModuleId) {
        self.reserve(node, module);
        self.account_mut(node).in_flight += 1;
    }

    /// Reserves a slot at `node` for a server that has no attempt in flight, because that attempt will be repeated.
    pub fn reserve(&mut self, node: NodeId, module: ModuleId) {
        let account = self.account_mut(node);
        account.sent += 1;
        account.total += 1;
        *account.by_module.entry(module).or_insert(0) += 1;
    }

    /// Undoes [`reserve`](Self::reserve).
    pub fn release(&mut self, node: NodeId, module: ModuleId) {
        let account = self.account_mut(node);
        account.sent = account.sent.saturating_sub(1);
        account.forget(module, 1);
        self.epoch += 1;
    }

    /// Takes back the assignment of an attempt that failed.
    pub fn withdraw(&mut self, node: NodeId, module: ModuleId) {
        let account = self.account_mut(node);
        account.in_flight = account.in_flight.saturating_sub(1);
        self.release(node, module);
    }

    /// Records that an attempt succeeded.
    pub fn arrive(&mut self, node: NodeId, module: ModuleId, now: Micros) {
        let now_ms = millis(now);
        let account = self.account_mut(node);
        account.in_flight = account.in_flight.saturating_sub(1);
        match account.arrived.back_mut() {
            Some((at, last, count)) if *at == now_ms && *last == module => *count += 1,
            _ => account.arrived.push_back((now_ms, module, 1)),
        }
    }

    /// Handles a heartbeat of `node`, or its answer to the question how many servers it has. `wall_ms` is the
    /// source's wall clock.
    ///
    /// Servers that arrived before the report was written are included in its numbers and no longer counted
    /// here. The time of writing is the earlier of two estimates: the report's stamp by the source's clock,
    /// which is exact when both clocks are right; and the stamp plus the smallest lag of this node's
    /// heartbeats, which needs no correct clock and is late by the shortest delay.
    pub fn report(&mut self, node: NodeId, report: &NodeView, now: Micros, wall_ms: i64) {
        let account = self.account_mut(node);
        if account.report.as_ref().is_some_and(|known| report.counted_ms() <= known.counted_ms()) {
            return;
        }
        let before = account.projections();
        account.report = Some(report.clone());
        let now_ms = millis(now);
        let lag_ms = now_ms.saturating_sub(report.counted_ms());
        let least_lag_ms = account.least_lag_ms.map_or(lag_ms, |least| least.min(lag_ms));
        account.least_lag_ms = Some(least_lag_ms);
        let by_the_source = report.counted_ms().saturating_sub(wall_ms).saturating_add(now_ms);
        let by_the_lag = report.counted_ms().saturating_add(least_lag_ms);
        let written_ms = by_the_source.min(by_the_lag);
        let mut missed = Missed::default();
        while let Some(&(at, module, count)) = account.arrived.front() {
            if at >= written_ms {
                break;
            }
            account.arrived.pop_front();
            account.forget(module, count);
            if at >= written_ms.saturating_sub(COUNTED_BEFORE_STAMP_MS) {
                missed.push((module, count));
            }
        }
        account.twice = account.overlaps(&before, &missed);
        self.epoch += 1;
    }

    /// The newest heartbeat of `node`.
    pub fn newest(&self, node: NodeId) -> Option<&NodeView> {
        self.account(node).and_then(|account| account.report.as_ref())
    }

    /// The number of servers assigned to `node` since its last report, of all modules.
    pub fn assigned(&self, node: NodeId) -> u32 {
        self.account(node).map_or(0, |account| account.total)
    }

    /// The number of servers assigned to `node` since its last report, as far as `count` includes them.
    pub fn assigned_of(&self, node: NodeId, count: Count) -> u32 {
        self.account(node).map_or(0, |account| account.assigned(count))
    }

    /// How many of the servers assigned to `node` since its last report that report already includes,
    /// estimated from the previous report. Negative when the report lacks servers that are no longer counted
    /// here.
    pub fn counted_twice(&self, node: NodeId, count: Count) -> f64 {
        self.account(node).map_or(0.0, |account| account.counted_twice(count))
    }

    /// All assignments to `node` that did not fail.
    pub fn sent(&self, node: NodeId) -> u32 {
        self.account(node).map_or(0, |account| account.sent)
    }

    /// Attempts to `node` in flight.
    pub fn in_flight(&self, node: NodeId) -> u32 {
        self.account(node).map_or(0, |account| account.in_flight)
    }

    /// Records the servers that the rebalance of `node` leaves there; `None` ends the record. Placement
    /// ignores it.
    pub fn leave(&mut self, node: NodeId, leaves: Option<Leaves>) {
        self.account_mut(node).leaves = leaves;
    }

    /// The servers that a running rebalance of `node` leaves there.
    pub fn leaves(&self, node: NodeId) -> Option<Leaves> {
        self.account(node).and_then(|account| account.leaves)
    }

    /// Records that a running rebalance will send `now` servers to `node`, in place of `before`. Placement
    /// ignores it.
    pub fn promise(&mut self, node: NodeId, before: u64, now: u64) {
        let promised = &mut self.account_mut(node).promised;
        *promised = promised.saturating_sub(before).saturating_add(now);
    }

    /// Servers that running rebalances will send to `node`, besides the assigned ones.
    pub fn promised(&self, node: NodeId) -> u64 {
        self.account(node).map_or(0, |account| account.promised)
    }

    /// Records that a rebalance begins (`begins`) or ends that sends servers to `node` because the node lacks
    /// more than the tolerance. Placement ignores it.
    pub fn fill(&mut self, node: NodeId, begins: bool) {
        let fillers = &mut self.account_mut(node).fillers;
        *fillers = if begins { fillers.saturating_add(1) } else { fillers.saturating_sub(1) };
    }

    /// Whether `node` lacked more than the tolerance when a rebalance began that still runs.
    pub fn is_filled(&self, node: NodeId) -> bool {
        self.account(node).is_some_and(|account| account.fillers > 0)
    }

    /// Incremented whenever a count shrinks or a new report arrives. While it is unchanged, projected loads
    /// only rise, so in a sorted heap only the top has to be checked.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn account(&self, node: NodeId) -> Option<&Account> {
        self.accounts.get(node.index())
    }

    fn account_mut(&mut self, node: NodeId) -> &mut Account {
        let index = node.index();
        if self.accounts.len() <= index {
            self.accounts.resize_with(index + 1, Account::default);
        }
        &mut self.accounts[index]
    }
}

/// The time of this clock in milliseconds, the unit of heartbeat stamps.
fn millis(now: Micros) -> i64 {
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Servers that a report may lack although they had arrived.
type Missed = Vec<(ModuleId, u32)>;

impl Account {
    /// For each number of the newest report, its value when all assigned servers have arrived.
    fn projections(&self) -> Vec<(Count, f64)> {
        let counts = self.report.iter().flat_map(Count::of);
        counts
            .map(|(count, reported)| (count, reported + f64::from(self.assigned(count)) - self.counted_twice(count)))
            .collect()
    }

    /// For each number of the newest report, how many servers are counted both in it and here. `before` has
    /// the projections without that report.
    fn overlaps(&self, before: &[(Count, f64)], missed: &Missed) -> Vec<(Count, f64)> {
        let counts = self.report.iter().flat_map(Count::of);
        counts
            .filter_map(|(count, reported)| {
                let (_, before) = before.iter().find(|(known, _)| *known == count)?;
                let of_count = |module: &ModuleId| count.module().is_none_or(|counted| counted == *module);
                let missed = missed.iter().filter(|(module, _)| of_count(module)).map(|(_, missed)| missed).sum();
                Some((count, overlap::overlap(*before, reported, self.assigned(count), missed)))
            })
            .collect()
    }

    /// The servers assigned since the newest report that `count` counts.
    fn assigned(&self, count: Count) -> u32 {
        count.module().map_or(self.total, |module| self.by_module.get(&module).copied().unwrap_or(0))
    }

    fn counted_twice(&self, count: Count) -> f64 {
        let known = self.twice.iter().find(|(known, _)| *known == count);
        known.map_or(0.0, |(_, twice)| twice.min(f64::from(self.assigned(count))))
    }

    fn forget(&mut self, module: ModuleId, count: u32) {
        self.total = self.total.saturating_sub(count);
        if let Some(left) = self.by_module.get_mut(&module) {
            *left = left.saturating_sub(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Scope;

    const NODE: NodeId = NodeId(3);
    const MODULE: ModuleId = ModuleId(0);
    /// The correct wall-clock time when our clock was zero.
    const WALL: i64 = 1_800_000_000_000;

    fn at(ms: u64) -> Micros {
        Micros::from_millis(ms)
    }

    /// A heartbeat written at `ms` of our clock on a node whose clock is `ahead_ms` ahead, received at
    /// `seen_ms`.
    fn beat(ledger: &mut Ledger, ms: i64, ahead_ms: i64, seen_ms: u64) {
        let report = NodeView { stamp_ms: WALL + ms + ahead_ms, ..NodeView::default() };
        ledger.report(NODE, &report, at(seen_ms), WALL + millis(at(seen_ms)));
    }

    fn with_one_arrival(at_ms: u64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.assign(NODE, MODULE);
        ledger.arrive(NODE, MODULE, at(at_ms));
        ledger
    }

    #[test]
    fn an_arrival_counts_until_a_later_heartbeat_reports_it() {
        let mut ledger = with_one_arrival(2_000);
        beat(&mut ledger, 1_000, 0, 3_000);
        assert_eq!(ledger.assigned(NODE), 1, "written before, seen after");
        beat(&mut ledger, 2_000, 0, 3_000);
        assert_eq!(ledger.assigned(NODE), 1, "written in the same millisecond: not surely included");
        beat(&mut ledger, 2_001, 0, 3_000);
        assert_eq!((ledger.assigned(NODE), ledger.assigned_of(NODE, Count::Limited(Scope::Module(MODULE)))), (0, 0));
    }

    #[test]
    fn an_answer_counts_as_a_report_until_a_later_heartbeat() {
        let mut ledger = with_one_arrival(2_000);
        let asked = NodeView { stamp_ms: WALL + 1_000, counted_at_ms: Some(WALL + 2_500), ..NodeView::default() };
        ledger.report(NODE, &asked, at(3_000), WALL + 3_000);
        assert_eq!(ledger.assigned(NODE), 0, "its heartbeat is older than the arrival, its answer is not");
        let epoch = ledger.epoch();
        beat(&mut ledger, 2_400, 0, 3_100);
        assert_eq!(ledger.epoch(), epoch, "a heartbeat from before the answer says nothing new");
        beat(&mut ledger, 2_600, 0, 3_200);
        assert_eq!(ledger.epoch(), epoch + 1);
    }

    #[test]
    fn a_repeated_heartbeat_changes_nothing() {
        let mut ledger = Ledger::default();
        beat(&mut ledger, 1_000, 0, 1_000);
        let epoch = ledger.epoch();
        beat(&mut ledger, 1_000, 0, 9_000);
        assert_eq!(ledger.epoch(), epoch);
    }

    #[test]
    fn a_clock_that_runs_ahead_does_not_hide_arrivals() {
        let mut ledger = Ledger::default();
        beat(&mut ledger, 0, 4_000, 20);
        ledger.assign(NODE, MODULE);
        ledger.arrive(NODE, MODULE, at(8_000));
        beat(&mut ledger, 7_000, 4_000, 9_000);
        assert_eq!(ledger.assigned(NODE), 1, "its stamp says 11,000, its lag says 7,020");
        beat(&mut ledger, 10_000, 4_000, 10_500);
        assert_eq!(ledger.assigned(NODE), 0);
    }

    #[test]
    fn a_source_whose_clock_is_behind_does_not_hide_the_arrivals_of_another_source() {
        let mut ledger = Ledger::default();
        beat(&mut ledger, 0, 0, 20);
        ledger.assign(NODE, MODULE);
        ledger.arrive(NODE, MODULE, at(8_000));
        let report = NodeView { stamp_ms: WALL + 7_000, ..NodeView::default() };
        ledger.report(NODE, &report, at(9_000), WALL + 9_000 - 5_000);
        assert_eq!(ledger.assigned(NODE), 1);
    }

    #[test]
    fn attempts_in_flight_count_after_every_heartbeat() {
        let mut ledger = Ledger::default();
        ledger.assign(NODE, MODULE);
        beat(&mut ledger, 9_000, 0, 9_000);
        assert_eq!((ledger.assigned(NODE), ledger.in_flight(NODE)), (1, 1));
        ledger.withdraw(NODE, MODULE);
        assert_eq!((ledger.assigned(NODE), ledger.in_flight(NODE)), (0, 0));
        assert_eq!(ledger.epoch(), 2, "one report, one withdrawal");
    }
}
