//! The health of the store, as far as attempts show it: whether any number of running servers may be stopped,
//! only one at a time, or none.
//!
//! Guarantees: after a failure of the store, one attempt probes the store before further running servers are
//! stopped, and the others may start only when it, or a later one, has succeeded. One server whose own object
//! the store refuses blocks nothing: it does not lengthen a rest, and other servers probe, too.
//!
//! ```text
//!   open ──failure──▶ resting ──rest is over──▶ probing, one attempt at a time ──success──▶ open
//!                        ▲                                   │
//!                        └───────────────failure─────────────┘
//! ```

use crate::ids::ServerId;
use crate::time::Micros;

/// The first rest: about as long as a store takes to accept a request that it refused at first.
const FIRST_REST: Micros = Micros::from_millis(250);
/// The longest rest. A probe costs the store one or two requests, and every further second is one without a
/// move.
const LONGEST_REST: Micros = Micros::from_millis(1_000);
/// A probe that takes longer may hang in its own server, so another one starts beside it.
const PROBE_PATIENCE: Micros = Micros::from_millis(2_000);

/// How many attempts may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// As many as there is room for.
    Open,
    /// One attempt.
    Probe,
    /// No attempt.
    Closed,
}

/// See the [module documentation](self).
#[derive(Debug, Clone, Default)]
pub struct StoreHealth {
    incidents: u32,
    since: Micros,
    until: Micros,
    /// The server whose attempt failed last.
    blamed: Option<ServerId>,
    /// The start of the latest attempt in which the store succeeded.
    served: Option<Micros>,
    /// The start of the latest probe in flight.
    probe: Option<(ServerId, Micros)>,
}

impl StoreHealth {
    /// Records that the store failed an attempt of `id` that began at `started`. Failures of attempts that
    /// began before the last incident belong to that incident.
    pub fn failed(&mut self, id: ServerId, started: Micros, now: Micros) {
        self.ended(id);
        if self.suspect() && (started < self.since || self.blamed == Some(id)) {
            return;
        }
        let rest = FIRST_REST.times(1 << self.incidents.min(10)).min(LONGEST_REST);
        self.incidents += 1;
        self.since = now;
        self.until = now + rest;
        self.blamed = Some(id);
    }

    /// Records that the store succeeded in an attempt of `id` that began at `started`. An attempt that began
    /// before the last incident does not count.
    pub fn served(&mut self, id: ServerId, started: Micros) {
        self.ended(id);
        self.served = self.served.max(Some(started));
        if started >= self.since {
            (self.incidents, self.blamed, self.probe) = (0, None, None);
        }
    }

    /// Whether the store has succeeded in an attempt that began at `at` or later.
    pub fn served_since(&self, at: Micros) -> bool {
        self.served.is_some_and(|served| served >= at)
    }

    /// Records the start of an attempt of `id`.
    pub fn started(&mut self, id: ServerId, now: Micros) {
        if self.suspect() {
            self.probe = Some((id, now));
        }
    }

    /// Records the end of an attempt of `id`, with any outcome.
    pub fn ended(&mut self, id: ServerId) {
        if self.probe.is_some_and(|(probe, _)| probe == id) {
            self.probe = None;
        }
    }

    /// How many attempts of running servers may start.
    pub fn running(&self, now: Micros) -> Gate {
        if self.suspect() && now < self.until { Gate::Closed } else { self.probing(now) }
    }

    /// Whether the displaced server `id` may start. Such an attempt can lose nothing, so it need not wait for
    /// the end of the rest. `others` says that other servers could probe in its place.
    pub fn displaced(&self, id: ServerId, now: Micros, others: bool) -> Gate {
        match self.probing(now) {
            Gate::Probe if others && self.blamed == Some(id) && now >= self.until => Gate::Closed,
            gate => gate,
        }
    }

    /// The time at which the access changes without an event.
    pub fn next_change(&self, now: Micros) -> Option<Micros> {
        let patience = self.probe.map(|(_, started)| started + PROBE_PATIENCE);
        let rest = self.suspect().then_some(self.until);
        [patience, rest].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn suspect(&self) -> bool {
        self.incidents > 0
    }

    fn probing(&self, now: Micros) -> Gate {
        match self.probe {
            _ if !self.suspect() => Gate::Open,
            Some((_, started)) if now < started + PROBE_PATIENCE => Gate::Closed,
            _ => Gate::Probe,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Micros = Micros::from_millis;
    const A: ServerId = ServerId(0);
    const B: ServerId = ServerId(1);

    #[test]
    fn after_a_failure_one_probe_runs_first_and_its_success_allows_the_others() {
        let mut store = StoreHealth::default();
        assert_eq!(store.running(MS(0)), Gate::Open);
        store.failed(A, MS(0), MS(10));
        assert_eq!((store.running(MS(259)), store.displaced(A, MS(60), true)), (Gate::Closed, Gate::Probe));
        assert_eq!(store.running(MS(260)), Gate::Probe);
        store.started(B, MS(260));
        assert_eq!(store.running(MS(300)), Gate::Closed, "one at a time");
        store.served(B, MS(260));
        assert_eq!(store.running(MS(301)), Gate::Open);
    }

    #[test]
    fn an_attempt_from_before_the_failure_does_not_count_for_the_time_after_it() {
        let mut store = StoreHealth::default();
        store.failed(A, MS(0), MS(10));
        store.served(B, MS(5));
        assert_eq!(store.running(MS(20)), Gate::Closed);
        store.failed(B, MS(5), MS(30));
        assert_eq!(store.next_change(MS(30)), Some(MS(260)), "one incident");
    }

    #[test]
    fn a_server_that_keeps_failing_neither_lengthens_the_rest_nor_blocks_other_probes() {
        let mut store = StoreHealth::default();
        store.failed(A, MS(0), MS(10));
        store.failed(A, MS(60), MS(70));
        assert_eq!(store.displaced(A, MS(260), true), Gate::Closed);
        assert_eq!(store.displaced(A, MS(260), false), Gate::Probe, "unless there is no other");
        assert_eq!(store.running(MS(260)), Gate::Probe);
    }

    #[test]
    fn an_outage_is_probed_every_second_even_when_a_probe_hangs() {
        let mut store = StoreHealth::default();
        for (id, at) in [(A, 0), (B, 250), (A, 750), (B, 1_750)] {
            store.failed(id, MS(at), MS(at));
        }
        assert_eq!((store.running(MS(2_749)), store.running(MS(2_750))), (Gate::Closed, Gate::Probe));
        store.started(A, MS(2_750));
        assert_eq!(store.next_change(MS(2_750)), Some(MS(4_750)));
        assert_eq!((store.running(MS(4_749)), store.running(MS(4_750))), (Gate::Closed, Gate::Probe));
    }
}
