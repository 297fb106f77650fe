//! The search for the knee: the smallest limit that still has the full throughput.
//!
//! Guarantee: the limit is never 0 and never above the ceiling. It rises only after a measurement that was
//! made while the limit was in use, by at most half. If attempts take two seconds or more and the previous
//! step met no queue, it may rise by three quarters, or double in the first step after a measurement that
//! predicted short attempts.
//!
//! ```text
//!   Learnt ──────────────┬────────────────────────────► Hold     (as before; slower, twice: Drop)
//!                        ▼
//!            Measure ──► Climb ◄──────────── probe up ───────────┐
//!                        │   │                                   │
//!          queue / blind │   │ queue, or no longer flat          │
//!                        ▼   ▼                                   │
//!    ┌───► Drop ───────► Hold ───────────── probe down ──► Drop  │
//!    └─ all queue         │  └───────────────────────────────────┘
//!                         └── slower, twice ───► Drop ──► Climb
//!
//!    refused too often, anywhere: Cut ──► helped: Recover ──► Climb
//!                                    └──► futile: Measure where we were
//! ```
//!
//! Every decision compares two measurements, at the limits `low` and `high`. With a queue in the store,
//! latency grows in proportion to the limit and throughput does not; without a queue it is the reverse. So in
//! any store the ratio `(L_high / L_low - 1) / (high / low - 1)` is 0 below the knee and 1 above it. If it is
//! 1, the knee is at `high · L_low / L_high`.

use std::cmp::Ordering;

use super::Learnt;
use super::change::Change;
use super::doubt::Doubt;
use super::flight::{Ended, Flight};
use super::probes::{Probe, Probes};
use super::tuning::{
    BRISK, CAREFUL, CAREFUL_STEPS, FEW, FIRST_STEP, FRESH, HALVE, LONG, LONG_STEP, LOWEST_CUT, NEAR_WALL, PAUSED_STEP,
    PAUSES, PROBE_DOWN, PROBE_DOWN_BLIND, PROBE_UP, QUARTER, SAME, SHORT, START,
};
use super::window::{Measure, Window, micros};
use crate::time::Micros;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Checks a limit that was learnt before, with its latency.
    Learnt { latency: f64, knee: bool },
    /// Measures a limit about which nothing is known.
    Measure,
    /// One step up from `from`, where latency was `flat`. `blind`: nothing is known about limits below
    /// `from`.
    Climb { from: u32, flat: Measure, step: u32, blind: bool },
    /// Stays at the knee, as far as it is known.
    Hold { usual: Option<Measure>, attempts: u32 },
    /// A step down from `from`, where latency was `before`, to see whether latency falls.
    Drop { from: u32, before: Measure, why: Why },
    /// A step down from `from` because of refusals, until [`Knee::cut_helped`] or [`Knee::cut_futile`].
    Cut { from: u32 },
    /// The way back up after refusals, by doubling, up to `until`.
    Recover { until: u32 },
}

/// Why a lower limit is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    /// A probe was due.
    Probe,
    /// Nothing is known about lower limits.
    Blind,
    /// Attempts took longer than before, because of the store or because the machine was busy for a while.
    Slower,
}

#[derive(Debug, Clone)]
pub(super) struct Knee {
    ceiling: u32,
    limit: u32,
    stage: Stage,
    window: Window,
    doubt: Doubt,
    probes: Probes,
    /// A limit at which too many attempts were refused.
    wall: Option<u32>,
    /// Whether anything was ever measured.
    measured: bool,
    /// The latest measured latency.
    latest: f64,
    found: Option<Learnt>,
}

impl Knee {
    pub fn new(ceiling: u32, learnt: Option<Learnt>) -> Self {
        let limit = learnt.map_or(START, |learnt| learnt.limit).clamp(1, ceiling);
        let stage = learnt.map_or(Stage::Measure, |learnt| {
            let knee = learnt.knee && learnt.limit <= ceiling;
            Stage::Learnt { latency: as_float(learnt.latency), knee }
        });
        Knee {
            ceiling,
            limit,
            stage,
            window: Window::open(1, limit),
            doubt: Doubt::new(),
            probes: Probes::new(),
            wall: None,
            measured: false,
            latest: 0.0,
            found: None,
        }
    }

    /// The limit that the search has come to, if it was measured.
    pub fn found(&self) -> Option<Learnt> {
        self.found
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// An attempt was served.
    pub fn served(&mut self, ended: Ended, latency: Micros) {
        self.window.served(ended, latency, self.limit);
    }

    /// Lowers the limit because too many attempts are refused.
    pub fn cut(&mut self, flight: &Flight) {
        let from = if let Stage::Cut { from } = self.stage { from } else { self.limit };
        let to = (self.limit / 2).max(LOWEST_CUT).min(self.limit);
        self.enter(Stage::Cut { from }, to, flight);
    }

    /// Refusals stopped after a cut.
    pub fn cut_helped(&mut self, flight: &Flight) {
        if let Stage::Cut { from } = self.stage {
            self.wall = Some(from);
            self.probes.later();
            let until = from.div_ceil(2);
            self.enter(Stage::Recover { until }, self.limit.saturating_mul(2).min(until), flight);
        }
    }

    /// Restores the limit because refusals do not depend on it.
    pub fn cut_futile(&mut self, flight: &Flight) {
        if let Stage::Cut { from } = self.stage {
            self.enter(Stage::Measure, from, flight);
        }
    }

    /// Starts over after a long time without attempts, because the store may have changed.
    pub fn rested(&mut self, flight: &Flight) {
        if self.measured {
            self.probes.soon_in(Probe::Up);
            self.wall = None;
            self.enter(Stage::Measure, self.limit, flight);
        }
    }

    /// Decides, if the window has a measurement.
    pub fn decide(&mut self, flight: &Flight) {
        match self.window.measure(flight) {
            None => {}
            Some(None) => self.again(self.stage, flight),
            Some(Some(measure)) => {
                self.latest = measure.latency;
                self.doubt.measured(measure);
                self.on_measure(measure, flight);
                self.measured = true;
            }
        }
    }

    fn on_measure(&mut self, measure: Measure, flight: &Flight) {
        match self.stage {
            Stage::Learnt { latency, knee } => self.learnt(measure, latency, knee, flight),
            Stage::Measure if self.limit == self.ceiling => self.hold(self.limit, Some(measure), flight),
            Stage::Measure => self.climb(measure, 0, !self.measured, flight),
            Stage::Climb { from, flat, step, blind } => self.climbed(measure, from, flat, step, blind, flight),
            Stage::Hold { usual: None, .. } => self.hold(self.limit, Some(measure), flight),
            Stage::Hold { usual: Some(usual), attempts } => self.held(measure, usual, attempts, flight),
            Stage::Drop { from, before, why } => self.dropped(measure, from, before, why, flight),
            Stage::Cut { .. } => self.again(self.stage, flight),
            Stage::Recover { until } if self.limit < until => {
                self.enter(Stage::Recover { until }, self.limit.saturating_mul(2).min(until), flight);
            }
            Stage::Recover { .. } => self.climb(measure, 1, false, flight),
        }
    }

    /// A limit that was learnt before was measured.
    fn learnt(&mut self, measure: Measure, latency: f64, knee: bool, flight: &Flight) {
        let ratio = measure.latency / latency;
        let noise = 2.0 * self.doubt.change(measure, measure, 1.0).noise;
        let long = measure.is_long();
        let pauses = long && latency < LONG;
        if ratio <= if long { PAUSES } else { SAME + noise } {
            self.doubt.looked();
            if !knee && self.limit < FEW && !pauses {
                // The limit may already be the knee of a small store, so the step is small.
                return self.climb_by(PROBE_UP, measure, 0, false, flight);
            }
            if !knee {
                return self.climb(measure, CAREFUL_STEPS, false, flight);
            }
            self.probes.confirmed();
            return self.hold(self.limit, Some(measure), flight);
        }
        if pauses && self.limit <= FEW {
            // Pauses are more likely than a queue. The next step up shows which of them it is.
            return self.climb_by(PAUSED_STEP, measure, CAREFUL_STEPS, true, flight);
        }
        // The first attempts of a node take longer because they load code and open connections, so it
        // measures again.
        if long || !self.look_again(1, flight) {
            self.drop((1.0 / ratio).clamp(QUARTER, PROBE_DOWN), measure, Why::Slower, flight);
        }
    }

    /// A step up was measured.
    fn climbed(&mut self, measure: Measure, from: u32, flat: Measure, step: u32, blind: bool, flight: &Flight) {
        let change = self.doubt.change(flat, measure, f64::from(self.limit) / f64::from(from));
        let long = measure.is_long() && flat.is_long();
        if blind && !long && change.was_cold() {
            return self.drop(PROBE_DOWN, measure, Why::Blind, flight);
        }
        if change.is_free() {
            self.doubt.looked();
            self.probes.soon();
            self.wall = self.wall.filter(|wall| self.limit < *wall);
            self.find(measure, false);
            if self.limit == self.ceiling {
                return self.hold(self.limit, Some(measure), flight);
            }
            let flat = flat.pooled(measure);
            if long && change.possible >= FIRST_STEP {
                return self.climb_by(LONG_STEP, flat, step + 1, false, flight);
            }
            return self.climb(flat, step + 1, false, flight);
        }
        if change.may_be_affordable() && self.look_closer(change) {
            return;
        }
        let maybe_a_stall = change.is_impossible() || (step >= CAREFUL_STEPS && self.limit > FEW);
        if self.look_again(u32::from(maybe_a_stall), flight) {
            return;
        }
        if blind {
            return self.drop(PROBE_DOWN_BLIND, measure, Why::Blind, flight);
        }
        if change.is_affordable() {
            self.probes.soon_in(Probe::Down);
            return self.hold(self.limit, Some(measure), flight);
        }
        self.probes.later();
        let knee = rounded(f64::from(self.limit) / change.ratio).clamp(from, self.limit - 1);
        self.hold(knee, (knee == from).then_some(flat), flight);
    }

    /// A window at an unchanged limit was measured.
    fn held(&mut self, measure: Measure, usual: Measure, attempts: u32, flight: &Flight) {
        let change = self.doubt.change(usual, measure, 1.0);
        let attempts = attempts.saturating_add(self.window.size());
        if change.is_slower() {
            if !self.look_again(1, flight) {
                self.probes.soon();
                self.drop((1.0 / change.ratio).clamp(QUARTER, PROBE_DOWN), measure, Why::Slower, flight);
            }
            return;
        }
        self.doubt.looked();
        if change.is_faster() {
            self.probes.soon_in(Probe::Up);
            return self.hold(self.limit, Some(measure), flight);
        }
        let usual = usual.pooled(measure);
        match self.probes.due(attempts, self.limit, self.limit == self.ceiling) {
            None => self.again(Stage::Hold { usual: Some(usual), attempts }, flight),
            Some(Probe::Up) => self.climb_by(PROBE_UP, usual, 0, false, flight),
            Some(Probe::Down) => self.drop(PROBE_DOWN, usual, Why::Probe, flight),
        }
    }

    /// A lower limit was measured.
    fn dropped(&mut self, measure: Measure, from: u32, before: Measure, why: Why, flight: &Flight) {
        let change = self.doubt.change(measure, before, f64::from(from) / f64::from(self.limit)).of_the_higher();
        if change.is_unsure() && self.look_closer(change) {
            return;
        }
        if measure.is_long() && change.possible > PAUSES && change.ratio <= PAUSES {
            // The attempts contain pauses, some of them one more than others, which explains the latency
            // without a queue.
            return self.hold(from, None, flight);
        }
        if change.is_inverse() {
            // Attempts take longer although fewer are in flight, so our attempts do not cause a queue.
            if !self.look_again(1, flight) {
                self.hold(from, None, flight);
            }
        } else if change.is_impossible() {
            // Latency has fallen more than a queue could explain, so a stall has ended.
            self.doubt.stalled();
            self.hold(from, None, flight);
        } else if change.is_all_queue() {
            // All of the fall was queueing, so the knee is further down.
            self.probes.soon();
            self.drop(HALVE, measure, why, flight);
        } else if why == Why::Slower {
            // Perhaps it was only the time that helped, not the lower limit.
            self.climb(measure, 0, false, flight);
        } else if !change.is_no_queue() {
            let knee = rounded(f64::from(from) / change.ratio).clamp(self.limit, from);
            if knee < from {
                self.probes.soon();
            }
            self.hold(knee, None, flight);
        } else if why == Why::Blind {
            self.limit = from;
            self.climb(before.pooled(measure), 0, false, flight);
        } else {
            self.hold(from, Some(before), flight);
        }
    }

    fn climb(&mut self, flat: Measure, step: u32, blind: bool, flight: &Flight) {
        let factor = if step < CAREFUL_STEPS { CAREFUL } else { BRISK };
        self.climb_by(factor, flat, step, blind, flight);
    }

    fn climb_by(&mut self, factor: f64, flat: Measure, step: u32, blind: bool, flight: &Flight) {
        let from = self.limit;
        if from >= self.ceiling {
            return self.hold(from, Some(flat), flight);
        }
        let next = rounded(f64::from(from) * factor).max(from + 1);
        let at_wall = self.wall.is_some_and(|wall| f64::from(next) > NEAR_WALL * f64::from(wall));
        if at_wall && step > 0 {
            self.hold(from, None, flight);
        } else {
            self.enter(Stage::Climb { from, flat, step, blind }, next, flight);
        }
    }

    fn find(&mut self, measure: Measure, knee: bool) {
        self.found = Some(Learnt { limit: self.limit, latency: micros(measure.latency), knee });
    }

    fn hold(&mut self, limit: u32, usual: Option<Measure>, flight: &Flight) {
        self.enter(Stage::Hold { usual, attempts: 0 }, limit, flight);
        if let Some(usual) = usual {
            self.find(usual, self.limit < self.ceiling);
        }
    }

    fn drop(&mut self, factor: f64, before: Measure, why: Why, flight: &Flight) {
        let from = self.limit;
        let least = if before.latency < SHORT { START.min(from) } else { 1 };
        if from == least {
            return self.hold(from, Some(before), flight);
        }
        let to = rounded(f64::from(from) * factor).clamp(least, from - 1);
        self.enter(Stage::Drop { from, before, why }, to, flight);
    }

    /// Another window in the same stage and limit.
    fn again(&mut self, stage: Stage, flight: &Flight) {
        self.enter(stage, self.limit, flight);
    }

    fn enter(&mut self, stage: Stage, limit: u32, flight: &Flight) {
        let before = std::mem::replace(&mut self.limit, limit.clamp(1, self.ceiling));
        self.stage = stage;
        self.doubt.decided();
        let size = self.window_size();
        self.window = match self.limit.cmp(&before) {
            Ordering::Less => Window::open(flight.next(), size),
            Ordering::Equal => self.window.followed_by(size, flight.next()),
            Ordering::Greater => Window::open(flight.first_within(micros(self.latest * FRESH)), size),
        };
    }

    fn window_size(&self) -> u32 {
        match self.stage {
            Stage::Learnt { .. } | Stage::Measure | Stage::Climb { .. } | Stage::Drop { .. } => self.limit.clamp(4, 8),
            Stage::Hold { .. } => self.limit.clamp(8, 12),
            Stage::Cut { .. } | Stage::Recover { .. } => self.limit.min(8),
        }
    }

    /// Measures again, with attempts that start from now on, if the machine may have stalled. Returns whether it
    /// does.
    fn look_again(&mut self, most: u32, flight: &Flight) -> bool {
        let again = self.doubt.look_again(most);
        if again {
            self.window = Window::open(flight.next(), self.window_size());
        }
        again
    }

    /// Makes the window larger if the change is close to a threshold and the window may still grow.
    fn look_closer(&mut self, change: Change) -> bool {
        self.doubt.wants_more(change, self.window.len()) && self.window.widen(self.window_size())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "limits are positive, and casts saturate")]
fn rounded(limit: f64) -> u32 {
    (limit + 0.5) as u32
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of an attempt are far below 2^53")]
fn as_float(latency: Micros) -> f64 {
    (latency.0 as f64).max(1.0)
}
