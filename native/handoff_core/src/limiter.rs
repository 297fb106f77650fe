//! Limits the number of parallel attempts: the smallest number that still has the full throughput, or a larger
//! one as long as attempts take less than 32 ms.
//!
//! # Guarantees
//!
//! - Never more than the ceiling are in flight, and the limit is never 0, so a drain always proceeds. If several
//!   drains share the limiter, their attempts that hang may come on top, up to the sum of the drains' ceilings.
//! - A drain that knows nothing of its store starts with three attempts. It makes one large step, to ten, if
//!   these did not wait for one another or took less than 32 ms. Every other step makes a gap longer by at most
//!   half, and the next two steps by at most a quarter, or by at most as much again towards 32 ms. If attempts take two
//!   seconds or more, a step may add three quarters, and the first one may double it if a measurement of the
//!   store predicted short attempts.
//! - A limit that was not in use (too few servers, targets at their caps) never rises.
//! - A store that refuses everything gets two attempts at a time. Occasional refusals that do not depend on
//!   the load do not lower the limit.
//! - Attempts that hang for a reason other than the store do not delay the others. If all attempts hang, a
//!   few more start, at growing intervals.
//! - The same calls give the same limits: no clock, no randomness, and only additions, multiplications,
//!   divisions and square roots, which are exact on every machine.
//! - Starting and finishing cost O(log n) in the attempts in flight; memory is a few words for each of them,
//!   and two kilobytes.
//!
//! # Why
//!
//! A store serves a certain number of requests at a time (*the knee*) and queues the rest. More attempts than
//! that add no throughput. They only wait, and during this wait (*the gap*) their servers are stopped. With 8
//! slots of 10 ms, 50 attempts in flight make every gap six times as long as 8 do, and the drain is no
//! faster. The knee is unknown at first and changes. A drain of 500 servers lasts only sixty round trips, so
//! there is little time to search, and the search may slow only four servers before it shows in the slowest
//! percent.
//!
//! # Method
//!
//! *What is measured.* Latency at a limit, not throughput. By Little's law (in flight = throughput x latency)
//! both have the same information, but attempts end in bursts, so their number in a short time is mostly
//! noise. `window` measures a cohort of attempts that started and ran under one limit, and trims both ends
//! against slow servers and scheduling.
//!
//! *What is decided.* `knee` compares two limits at a time. If latency grows in proportion to the limit,
//! there is a queue; if it does not grow, there is none (`change`). While it does not grow, the limit rises, by
//! a quarter at first, then by half. After the first step at which it grows, the two latencies also give the
//! knee. Near the knee the limit holds. After 2, 4, 8, then every 16 generations of attempts it probes
//! (`probes`), alternately an eighth higher, which makes some gaps longer, and a third lower, which costs a
//! little throughput. If latency changes at an unchanged limit, the store has changed, and that is examined
//! at once. The more the attempts of a measurement differ, the more of them a decision needs (`doubt`).
//!
//! *The start of a drain that knows nothing.* The first three attempts start together. A move makes several
//! requests one after the other, and a store with fewer slots serves its last ones one after the other, too. So
//! if the three end together, there was no queue, and ten can be next: the comparison with three is as good as
//! one between eight and ten. If they end apart, four are next, and if latency grows, there is a queue, and
//! fewer are tried, down to one. If they differ by more than a queue of three can explain, they tell nothing,
//! and eight are next. The first attempts of a node load code and open connections, so they may take longer
//! than later ones; if so, the search begins again at the limit that it has come to.
//!
//! *Busy processors.* Waiting for a processor looks like a queue in the store. But it delays all attempts in
//! flight at the same time, so these do not differ, and it passes. On a node with much other work, cohorts at
//! one limit differed twice as much as the attempts within them. Three things distinguish the two: the delay
//! of a queue changes at most in proportion to the limit; a queue is still there when later attempts are
//! measured; and it exists only at the higher limit, so a limit that was lowered because attempts were slow
//! is raised again at once. Each stall that was seen adds one measurement before the next decision to go
//! down, or not to go up.
//!
//! *Short attempts.* A gap of less than 32 ms is hardly noticed, and a drain with more attempts at a time needs
//! less processor time for each. So as long as attempts take less, the limit rises even if they wait for one
//! another: to where they would take 32 ms if they did nothing else, but at most to twice as many at once.
//!
//! *Attempts that take seconds.* Cloudflare R2 and Google Cloud Storage accept one write a second for each
//! key, so each move pauses two or three times, however many run in parallel. Some servers also stop slowly.
//! One generation of such attempts can be a fifth of a small drain. So the search is faster: after a first
//! step, the limit rises by three quarters. It measures the faster half of the attempts, which
//! an additional pause of some does not prolong but a queue does. If an earlier measurement of the store
//! predicted short attempts, the limit doubles at once or, if it is high, falls to a quarter for one
//! measurement.
//!
//! *Moves in several attempts.* If the start on the target takes longer than its caller waits, the attempt
//! fails, and the next one finds the server started, in no time. Such an attempt is only the rest of a move
//! and says nothing about how long one takes.
//!
//! *Earlier measurements* ([`Learnt`]) of an earlier drain, or of the store before the first server is
//! stopped, are where the search starts. They are trusted only if the first attempts take about as long as
//! they say. If the first attempts take longer than those at the next higher limit, they were of a cold start. What
//! they have shown is dropped then, and a limit that may be that of a small store is measured again.
//!
//! *Refusals.* `overload` halves the limit when more requests than usual are refused, and restores it if that
//! has no effect.
//!
//! *Attempts that hang.* An attempt that is far older than others that were served meanwhile does not wait
//! for the store. It no longer counts against the limit (`flight`). When no attempt ends at all, either the store
//! hangs or the servers do. Then [`Limiter::next_tick`] gives the time at which one more attempt (a canary) may
//! start. If the canary is served, the other attempts are the ones that hang.
//!
//! *Several drains.* The ceiling is the highest of the drains at the same time ([`Limiter::join`]). Attempts that
//! hang count only under their own drain's ceiling, so the servers of one drain cannot hold up another one
//! ([`Limiter::set_room`]).
//!
//! # Where the constants come from
//!
//! Each constant is explained where it is defined. Those that do not follow from something else (growth
//! factors, thresholds, waits) were chosen on 80 simulated stores with 1 to unlimited slots, with and without
//! noise, 21 seeds each. None of them is critical: a fifth more or less changes the results by a few percent.
//! `handoff_sim table` shows some of these stores, and `handoff_sim/tests/limiter.rs` has the requirements.
//!
//! # Related work
//!
//! TCP Vegas and the Gradient limiters compare latency with the lowest ever seen. BBR multiplies the lowest
//! latency by the highest throughput. Envoy measures the lowest latency again from time to time at low
//! concurrency. For minima and slow averages a drain is too short and a BEAM during shutdown too noisy, so
//! this limiter compares pairs of cohorts. Kleinrock's power gives the bound on the cost of a step.

mod change;
mod doubt;
mod flight;
mod knee;
mod overload;
mod probes;
mod recent;
mod tuning;
mod window;

use crate::time::Micros;

pub use flight::Permit;

use flight::Flight;
use knee::Knee;
use overload::{Advice, Overloads};
use recent::Recent;

/// Whether the limiter may search for a limit below its ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Concurrency {
    /// Searches for the smallest limit that still has the full throughput, or a larger one while attempts are short.
    Adaptive,
    /// Always uses the ceiling.
    Fixed,
}

/// What a drain has measured of its store. The next drain may start from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Learnt {
    /// The number of attempts at a time.
    pub limit: u32,
    /// The latency of an attempt at that limit.
    #[cfg_attr(feature = "serde", serde(rename = "latency_us"))]
    pub latency: Micros,
    /// Whether the store is slower with more attempts. False if more were not tried.
    pub knee: bool,
}

/// The effect of an attempt's end on the limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Verdict {
    /// The store served the attempt, so its latency counts.
    Served,
    /// The store served an attempt whose server an earlier one had stopped. Its latency does not count.
    ServedAfterStop,
    /// The store, or the path to it, refused or timed out.
    Overload,
    /// No effect: a full target, or a crash of the server itself. The attempt gives no sample.
    Neutral,
}

/// An attempt that has taken this many times the usual duration ([`Limiter::typical_latency`]) waits for
/// something other than the store.
const OVERDUE: u64 = 4;
/// If nothing was measured yet and no attempt has ended for this long, a canary starts.
const FIRST_PATIENCE: Micros = Micros::from_millis(1_000);
/// The minimum of that time after a measurement, however short attempts are: garbage collection and failovers
/// of a store take this long.
const LEAST_PATIENCE: Micros = Micros::from_millis(250);
/// The time doubles with every canary, up to 2 to this power.
const MOST_DOUBLINGS: u32 = 10;
/// After this long without attempts in flight, the limit is measured again.
const REST: Micros = Micros::from_millis(5_000);

/// See the [module documentation](self). One limiter may serve several drains of the same store.
#[derive(Debug, Clone)]
pub struct Limiter {
    mode: Concurrency,
    ceiling: u32,
    /// The most attempts in flight, with those that hang.
    room: u32,
    flight: Flight,
    knee: Knee,
    overloads: Overloads,
    recent: Recent,
    /// Attempts allowed above the limit because no attempt ends.
    canaries: u32,
    /// When an attempt last started, ended, or was allowed as a canary.
    quiet_since: Micros,
}

impl Limiter {
    /// A limiter that allows at most `ceiling` attempts at a time. A ceiling of 0 counts as 1.
    pub fn new(mode: Concurrency, ceiling: u32) -> Self {
        Limiter::starting_from(mode, ceiling, None)
    }

    /// A limiter that starts from an earlier measurement. If the first attempts take longer than measured
    /// then, it tries lower limits, or starts as a new limiter does.
    pub fn starting_from(mode: Concurrency, ceiling: u32, learnt: Option<Learnt>) -> Self {
        let ceiling = ceiling.max(1);
        Limiter {
            mode,
            ceiling,
            room: ceiling,
            flight: Flight::default(),
            knee: Knee::new(ceiling, learnt),
            overloads: Overloads::default(),
            recent: Recent::default(),
            canaries: 0,
            quiet_since: Micros::ZERO,
        }
    }

    /// A drain uses the limiter from now on. If others do so, too, the ceiling rises to that of the drain, and what
    /// the drain has `learnt` counts as long as nothing was measured, or if it is a limit that only the ceiling has
    /// kept this limiter from. `alone`: there are no others, so the drain's mode and ceiling apply.
    pub fn join(&mut self, mode: Concurrency, ceiling: u32, learnt: Option<Learnt>, alone: bool) {
        if alone && (mode != self.mode || ceiling < self.ceiling) {
            *self = Limiter::starting_from(mode, ceiling, self.learnt().or(learnt));
        } else {
            self.ceiling = self.ceiling.max(ceiling);
            self.knee.join(self.ceiling, learnt, &self.flight);
        }
    }

    /// Sets how many attempts the drains that share the limiter may have in flight together: the sum of their
    /// ceilings. 0 counts as 1. Only attempts that hang, and canaries, exceed the limit.
    pub fn set_room(&mut self, room: u32) {
        self.room = room.max(1);
    }

    /// The number of attempts that may run at a time, from 1 to the ceiling.
    pub fn limit(&self) -> u32 {
        match self.mode {
            Concurrency::Adaptive => self.knee.limit(),
            Concurrency::Fixed => self.ceiling,
        }
    }

    /// What the next drain on this store may start from; `None` before a limit was measured, and in the fixed
    /// mode.
    pub fn learnt(&self) -> Option<Learnt> {
        self.knee.found().filter(|_| self.mode == Concurrency::Adaptive)
    }

    /// Attempts that have started and not finished. The number exceeds the limit after the limit fell, and by
    /// attempts that hang. It never exceeds the room if only [available](Self::available) attempts start.
    pub fn in_flight(&self) -> u32 {
        self.flight.in_flight()
    }

    /// The number of attempts that may start now.
    pub fn available(&self) -> u32 {
        let beside = self.flight.overdue().saturating_add(self.canaries);
        self.limit().saturating_add(beside).min(self.room).saturating_sub(self.in_flight())
    }

    /// The usual duration of an attempt: nine in ten of the latest served ones took no longer. `None` before
    /// the first one.
    pub fn typical_latency(&self) -> Option<Micros> {
        self.recent.typical()
    }

    /// Records the start of an attempt. The permit must be passed to [`on_finish`](Self::on_finish), however
    /// the attempt ends.
    pub fn on_start(&mut self, now: Micros) -> Permit {
        if self.in_flight() == 0 && now.since(self.quiet_since) >= REST {
            self.knee.rested(&self.flight);
        }
        let permit = self.flight.start(now);
        self.quiet_since = now;
        permit
    }

    /// Records the end of an attempt. `latency` is its duration where it ran, without the time of the message
    /// about it.
    pub fn on_finish(&mut self, now: Micros, permit: Permit, latency: Micros, verdict: Verdict) {
        let Some(ended) = self.flight.finish(now, permit) else {
            return;
        };
        self.quiet_since = now;
        self.canaries = 0;
        if verdict == Verdict::Served {
            self.recent.push(latency);
            // The attempt's own latency counts as well: after a pause of the store all attempts in flight are
            // old and none is overdue.
            let usual = self.recent.typical().map_or(latency, |typical| typical.max(latency));
            self.flight.overdue_after(usual.times(OVERDUE));
        }
        if self.mode == Concurrency::Fixed {
            return;
        }
        // An overdue attempt does not wait for the store, so its end says nothing about the store.
        if !ended.overdue {
            match verdict {
                Verdict::Served => self.knee.served(ended, latency),
                Verdict::ServedAfterStop | Verdict::Overload | Verdict::Neutral => {}
            }
            if verdict != Verdict::Neutral {
                self.on_outcome(ended.number, verdict == Verdict::Overload);
            }
        }
        self.knee.decide(&self.flight);
    }

    /// When [`on_tick`](Self::on_tick) should be called, if no attempt starts or ends before. Without these
    /// calls the limiter still works, but waits for timeouts when all attempts hang.
    pub fn next_tick(&self) -> Option<Micros> {
        let may_add = self.mode == Concurrency::Adaptive && self.in_flight() < self.room;
        let waiting = self.in_flight() > 0 && self.available() == 0;
        (may_add && waiting).then(|| self.quiet_since + self.patience())
    }

    /// Allows one more attempt if none has ended for a long time.
    pub fn on_tick(&mut self, now: Micros) {
        if self.next_tick().is_some_and(|at| at <= now) {
            self.canaries += 1;
            self.quiet_since = now;
        }
    }

    fn patience(&self) -> Micros {
        let first = self.recent.typical().map_or(FIRST_PATIENCE, |usual| usual.times(OVERDUE).max(LEAST_PATIENCE));
        first.times(1 << self.canaries.min(MOST_DOUBLINGS))
    }

    fn on_outcome(&mut self, number: u64, refused: bool) {
        let last_started = self.flight.next() - 1;
        match self.overloads.outcome(number, last_started, refused) {
            Advice::Nothing => {}
            Advice::Cut => self.knee.cut(&self.flight),
            Advice::CutHelped => self.knee.cut_helped(&self.flight),
            Advice::CutFutile => self.knee.cut_futile(&self.flight),
        }
    }
}
