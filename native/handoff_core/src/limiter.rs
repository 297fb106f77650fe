//! How many attempts at a time: the smallest number that still has the full throughput.
//!
//! # Guarantees
//!
//! - Never more than the ceiling are in flight, and the limit is never 0: a drain always goes on.
//! - No single step lengthens a gap by more than half, and the first two steps by no more than a quarter. Where attempts take a
//!   second or more, the first step may lengthen it by half, and a later one double it.
//! - A limit that was not in use (too few servers, targets at their caps) never rises.
//! - A store that refuses everything gets two attempts at a time; one that refuses now and then, whatever its load, gets what it
//!   would get otherwise.
//! - Attempts that hang for other reasons than the store do not delay the others. If everything hangs, a few more start,
//!   at longer and longer intervals.
//! - The same calls give the same limits: no clock, no randomness, and only additions, multiplications, divisions and square
//!   roots, which are exact on every machine.
//! - Starting and finishing cost O(log n) in the attempts in flight; memory is a few words for each of them, and two kilobytes.
//!
//! # Why
//!
//! A store serves so many requests at a time and queues the rest. Attempts beyond that number (*the knee*) gain no throughput, they
//! only wait, and every attempt waits with its server stopped: the gap. With 8 slots of 10 ms, 50 in flight make every gap six
//! times as long as 8 do, and the drain no faster. The knee is not known beforehand, it moves, and a drain of 500 servers
//! lasts sixty round trips: there is little time to search, and only five of them may suffer before it shows in the slowest percent.
//!
//! # Method
//!
//! *What is measured.* Latency against the limit, not throughput: in flight = throughput x latency (Little), so they say the same,
//! but attempts end in bursts, and a count of them over a short time is mostly noise. `window` measures a cohort of attempts
//! that started under one limit and ran under it, trimmed on both sides against slow servers and scheduling.
//!
//! *What is decided.* `knee` compares two limits at a time. Where latency grows in step with the limit, there is a queue; where it
//! does not, there is none. Starting at 8, it climbs while steps are free, a quarter at first, then by half. At the first step that
//! is not, the two latencies also say where the knee is. Near the knee, it holds, and after 2, 4, 8, then every 16 generations
//! probes by turns: up by a quarter, which lengthens some gaps, or down by a third, which costs a little throughput. A climb that
//! fails at its very first step has learnt nothing about lower limits: it looks down at once, and further down as long as it
//! finds nothing but queue. Latency that changes while the limit does not is a change of the store, and looked into at once. How
//! many attempts a decision takes depends on how much they differ among each other.
//!
//! *Processors that are busy.* A wait for them looks like a queue in the store, but it is in all attempts that are in flight at
//! once, so these do not differ, and it passes. Measured on a node beside much other work, cohorts at one limit differed twice as
//! much as their attempts did. Three things tell the two apart: a queue grows and falls at most in step with the limit; it is
//! still there when attempts that start later are measured; and it is at the higher limit only, so a limit that was lowered
//! because attempts were slow is raised again at once. Each stall that was seen makes the next decision to go down, or
//! not to go up, one look slower. Attempts that are short anyway are worth no limit below the first one: they wait for processors
//! only, and few at a time use these badly.
//!
//! *Attempts that take seconds.* Cloudflare R2 and Google Cloud Storage take one write a second for each key, so each move pauses
//! two or three times, with any number of others beside it. Some servers end slowly. A queue of eight attempts is that slow only
//! in a store of fewer than thirty requests a second, and each generation of attempts is a fifth of a small drain. So the search
//! goes faster: by half, then doubling, and looks at the fastest attempts, which pauses do not lengthen by chance and a queue
//! does. Where a look at the store expected short attempts, it doubles at once or, from a high limit, falls to a quarter for one
//! look.
//!
//! *What was learnt before* ([`Learnt`]), by an earlier drain or by a look at the store before anything was stopped, is where the
//! search starts. The first attempts have to take about as long as they did then.
//!
//! *Refusals.* `overload` halves the limit when more is refused than usual, and undoes it when that changes nothing.
//!
//! *Attempts that hang.* One that is far older than those that were served meanwhile does not wait for the store. It keeps its place
//! under the ceiling but no longer counts against the limit (`flight`). When nothing ends at all, a hanging store
//! looks like hanging servers: [`Limiter::next_tick`] asks to be called, and lets one more attempt go, a canary. If it is
//! served, the others are the ones that hang.
//!
//! # Where the constants come from
//!
//! Each is named where it is used and says what it stands for. Those that are not consequences of something (growth factors,
//! thresholds, waits) were chosen on 80 simulated stores of 1 to unlimited slots, with and without noise, 21 seeds
//! each. None of them is sharp: a fifth more or less moves the figures by a few percent. `handoff_sim table` shows some
//! of these stores, and `handoff_sim/tests/limiter.rs` says what has to hold on them.
//!
//! # Related work
//!
//! TCP Vegas and the Gradient limiters compare latency with the least ever seen, BBR multiplies that least latency by the highest
//! throughput, Envoy measures it anew from time to time at low concurrency. A drain is too short, and a BEAM under shutdown too
//! noisy, for minima and slow averages: hence pairs of cohorts. The bound on a step's cost is Kleinrock's power.

mod flight;
mod knee;
mod overload;
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
    /// Searches for the smallest limit that still has the full throughput.
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
    /// The store, or the path to it, refused or timed out.
    Overload,
    /// No effect: a full target, or a crash of the server itself. The attempt gives no sample.
    Neutral,
}

/// An attempt that has taken this many times the usual time (nine in ten take no longer than that) does not
/// wait for the store.
const OVERDUE: u64 = 4;
/// How long no attempt ends before a canary starts, while nothing was measured yet.
const FIRST_PATIENCE: Micros = Micros::from_millis(1_000);
/// The least such time afterwards, however short attempts usually are: garbage collection and failovers of a
/// store take this long.
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
    flight: Flight,
    highest: u32,
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
            flight: Flight::default(),
            highest: 0,
            knee: Knee::new(ceiling, learnt),
            overloads: Overloads::default(),
            recent: Recent::default(),
            canaries: 0,
            quiet_since: Micros::ZERO,
        }
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
    /// attempts that hang. It never exceeds the ceiling if only [available](Self::available) attempts start.
    pub fn in_flight(&self) -> u32 {
        self.flight.in_flight()
    }

    /// The highest number of attempts in flight so far.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// How many attempts may start now.
    pub fn available(&self) -> u32 {
        let beside = self.flight.overdue().saturating_add(self.canaries);
        self.limit().saturating_add(beside).min(self.ceiling).saturating_sub(self.in_flight())
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
        self.highest = self.highest.max(self.in_flight());
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
        }
        if self.mode == Concurrency::Fixed {
            return;
        }
        if verdict == Verdict::Served {
            // The attempt's own latency counts as well: after a pause of the store all attempts in flight are
            // old and none is overdue.
            let usual = self.recent.typical().map_or(latency, |typical| typical.max(latency));
            self.flight.overdue_after(usual.times(OVERDUE));
        }
        // An overdue attempt does not wait for the store, so its end says nothing about the store.
        if !ended.overdue {
            match verdict {
                Verdict::Served => self.knee.served(ended, latency),
                Verdict::Overload | Verdict::Neutral => {}
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
        let may_add = self.mode == Concurrency::Adaptive && self.in_flight() < self.ceiling;
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
