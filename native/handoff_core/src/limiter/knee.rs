//! The search for the knee: the smallest limit that still has the full throughput. Where attempts are short
//! ([`SHORT`]), the limit is higher.
//!
//! Guarantee: the limit is never 0 and never above the ceiling. It rises only after a measurement that was
//! made while the limit was in use, by the factors that `limiter.rs` states.
//!
//! A stage is one limit with one question. When its measurement is complete, `decide` answers the question, and
//! the next stage begins:
//!
//! ```text
//!   nothing known              known from before
//!        │                           │
//!     Measure ◄─ cold start ──┐   Learnt ── slower, twice ─► Drop
//!        │                    │      │
//!        │ together: to 10    │      ├─ as before, with a knee ─► Hold
//!        │ apart: to 4        │      ├─ faster, with a low knee ─► as after Measure
//!        │                    │      └─ as before, without one ─┐
//!        ▼                    │                                 ▼
//!      Climb ─────────────────┴──────────────────────────────► Climb
//!        │   no queue, or short attempts: the next step up, Climb; at the ceiling, Hold
//!        │   faster than at a lower limit of a few, which was a cold start: Learnt, at that limit again
//!        │   a queue: Hold at the knee; below the first limits, Drop
//!        ▼
//!      Hold ── as before: Hold; a probe is due: Climb or Drop
//!        │   slower, twice: Drop; faster: Hold
//!        ▼
//!      Drop ── all of it was a queue: Drop further
//!            ─ part of it was: Hold at the knee
//!            ─ none of it was: Hold where it came from; if nothing was known or it was slower: Climb
//!
//!   refused too often, in any stage: Cut ──► it helped: Recover ──► Climb
//!                                        └─► it did not: Measure at the old limit
//! ```

mod decide;

use std::cmp::Ordering;

use super::Learnt;
use super::change::Change;
use super::doubt::Doubt;
use super::flight::{Ended, Flight};
use super::probes::{Probe, Probes};
use super::tuning::{
    BRISK, CAREFUL, CAREFUL_STEPS, FIRST, FRESH, LOWEST_CUT, NEAR_WALL, PROBE_UP, SAME, SHORT, SHORT_STEP,
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

impl Stage {
    fn learnt(learnt: Learnt, ceiling: u32) -> Stage {
        Stage::Learnt { latency: as_float(learnt.latency), knee: learnt.knee && learnt.limit <= ceiling }
    }
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
        let limit = learnt.map_or(FIRST, |learnt| learnt.limit).clamp(1, ceiling);
        Knee {
            ceiling,
            limit,
            stage: learnt.map_or(Stage::Measure, |learnt| Stage::learnt(learnt, ceiling)),
            window: Window::open(1, limit),
            doubt: Doubt::new(),
            probes: Probes::new(),
            wall: None,
            measured: false,
            latest: 0.0,
            found: None,
        }
    }

    /// Another drain shares the limiter. The ceiling is the new one, which is not lower than before.
    pub fn join(&mut self, ceiling: u32, learnt: Option<Learnt>, flight: &Flight) {
        let at_ceiling = self.limit == self.ceiling && matches!(self.stage, Stage::Hold { .. } | Stage::Learnt { .. });
        self.ceiling = ceiling;
        let unknown = !self.measured && matches!(self.stage, Stage::Measure);
        let from = self.limit;
        let counts = |learnt: &Learnt| {
            let higher = learnt.limit > from && self.latest <= SAME * as_float(learnt.latency);
            unknown || (at_ceiling && higher)
        };
        if let Some(learnt) = learnt.filter(counts) {
            self.enter(Stage::learnt(learnt, ceiling), learnt.limit, flight);
        } else if at_ceiling && from < ceiling && matches!(self.stage, Stage::Hold { .. }) {
            self.again(Stage::Measure, flight);
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
        if self.measured && !matches!(self.stage, Stage::Learnt { .. }) {
            self.probes.soon_in(Probe::Up);
            self.wall = None;
            self.enter(Stage::Measure, self.limit, flight);
        }
    }

    /// Decides, if the window has a measurement.
    pub fn decide(&mut self, flight: &Flight) {
        match self.window.measure(flight, self.measured) {
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
            Stage::Measure if !self.measured => self.first(measure, flight),
            Stage::Measure => self.climb(measure, 0, self.found.is_none(), flight),
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

    fn climb(&mut self, flat: Measure, step: u32, blind: bool, flight: &Flight) {
        let factor = if step < CAREFUL_STEPS { CAREFUL } else { BRISK };
        self.climb_by(factor.max(self.up_to_short()), flat, step, blind, flight);
    }

    /// The step after which attempts take [`SHORT`] if they only wait for one another: at most [`SHORT_STEP`],
    /// and none where attempts were refused.
    fn up_to_short(&self) -> f64 {
        if self.wall.is_some() { 1.0 } else { (SHORT / self.latest).min(SHORT_STEP) }
    }

    /// Whether attempts are so short that a step up is worth its price.
    fn is_short(&self) -> bool {
        self.limit < self.ceiling && self.up_to_short() >= PROBE_UP
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
        let least = self.least(before.latency);
        if from == least {
            return self.hold(from, Some(before), flight);
        }
        let to = rounded(f64::from(from) * factor).clamp(least, from - 1);
        self.enter(Stage::Drop { from, before, why }, to, flight);
    }

    /// The lowest limit that is worth a try if attempts take this long: at which they would take [`SHORT`] if
    /// they only waited for one another.
    fn least(&self, latency: f64) -> u32 {
        rounded(f64::from(self.limit) * (SHORT / latency).min(1.0)).max(1)
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
        self.doubt.wants_more(change, self.window.len(), self.limit) && self.window.widen(self.window_size())
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
