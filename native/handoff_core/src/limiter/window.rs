//! A measurement: how long attempts take under one limit.
//!
//! Guarantee: a measurement is of a *cohort*, attempts in the order of their starts, not of those that
//! happened to end first, which would be the fastest ones. It waits for four fifths of them, and for the rest
//! until these are clearly late; late ones count as slowest. The result is the mean of the middle three
//! fifths, so one slow server in five does not change it.
//!
//! It uses a mean, not a median: with a queue in a store of few slots, latencies are multiples of the service
//! time, and a median would jump between them.
//!
//! Attempts that take two seconds or more ([`LONG`]) are measured by the faster half. Such attempts contain
//! pauses, and some contain one more than others: on a store that accepts one write a second for each key, or
//! with servers that stop slowly. A mean of eight would only show how many had one more. A queue delays the
//! faster half, too. How long that took is known when half of the cohort has ended. The same holds if half of
//! the cohort is far older than the other half: those servers stop slowly. The very first cohort is always
//! measured as a whole, because the differences in it count.

use std::ops::Range;

use super::flight::{Ended, Flight};
use super::tuning::{COLDER, LONG, TOGETHER, WIDE};
use crate::time::Micros;

/// The largest cohort. A larger one would take more time than it is worth.
pub(super) const LARGEST: u32 = 48;
/// The mean leaves out one in this many attempts at either end.
const TRIM: usize = 5;
/// An attempt is late after this many times the cohort's median. With log-normal noise (sigma one half) on
/// every operation, 3 % of attempts are.
const LATE: f64 = 1.5;
/// If half of a cohort has ended and the others have taken this many times as long as the slowest of these,
/// the others wait for something else than the store: their servers stop slowly. A queue of equal attempts
/// does not do that. Simulated.
const APART: f64 = 2.5;
/// The middle three fifths of a normal distribution span this many standard deviations.
const MIDDLE_SPAN: f64 = 1.68;
/// A sample counts only if at least this part of the limit was in use during the attempt. Otherwise the limit
/// did not matter.
const IN_USE: f64 = 0.85;

/// Latency at one limit, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measure {
    pub latency: f64,
    /// Standard deviation of one attempt, as a fraction of `latency`.
    pub spread: f64,
    pub count: f64,
}

impl Measure {
    /// Whether attempts take so long that they probably do not wait in a queue of the store.
    pub fn is_long(self) -> bool {
        self.latency >= LONG
    }

    /// Whether the attempts ended together, so that none waited for another.
    pub fn ended_together(self) -> bool {
        self.spread < TOGETHER
    }

    /// Whether these few first attempts, which ended together, differ from later ones in something else than a
    /// queue, which delays all attempts: they were of a cold start, or had only near targets.
    pub fn is_unlike(self, later: Measure) -> bool {
        let fastest = later.latency * (1.0 - later.spread * MIDDLE_SPAN / 2.0);
        let bound = if later.spread > WIDE { 1.0 / COLDER } else { COLDER };
        self.ended_together() && fastest < bound * self.latency
    }

    /// Combines two measurements of the same limit. The weight is at most [`LARGEST`] attempts, so older
    /// measurements fade.
    pub fn pooled(self, other: Measure) -> Measure {
        let count = self.count + other.count;
        let mix = |a: f64, b: f64| (a * self.count + b * other.count) / count;
        Measure {
            latency: mix(self.latency, other.latency),
            spread: mix(self.spread, other.spread),
            count: count.min(f64::from(LARGEST)),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Window {
    first: u64,
    size: u32,
    /// Number and latency of the served attempts of the cohort and just after it.
    served: Vec<(u64, f64)>,
}

impl Window {
    /// The cohort of `size` attempts from number `first` on.
    pub fn open(first: u64, size: u32) -> Self {
        Window { first, size: size.min(LARGEST), served: Vec::new() }
    }

    /// The next cohort under the same limit. It includes attempts that have already started or even ended.
    pub fn followed_by(&self, size: u32, next: u64) -> Self {
        let first = self.cohort().end.min(next);
        let served = self.served.iter().copied().filter(|(number, _)| *number >= first).collect();
        Window { served, ..Window::open(first, size) }
    }

    /// Makes the cohort larger. Returns false if it has the largest size already.
    pub fn widen(&mut self, by: u32) -> bool {
        let size = (self.size + by).min(LARGEST);
        let grew = size > self.size;
        self.size = size;
        grew
    }

    pub fn served(&mut self, ended: Ended, latency: Micros, limit: u32) {
        let recorded = self.first..self.first + u64::from(LARGEST);
        if recorded.contains(&ended.number) && ended.held >= IN_USE * f64::from(limit) {
            self.served.push((ended.number, (latency.0 as f64).max(1.0)));
        }
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    pub fn len(&self) -> usize {
        let cohort = self.cohort();
        self.served.iter().filter(|(number, _)| cohort.contains(number)).count()
    }

    /// The measurement, or `None` while the cohort has not enough results. `Some(None)`: the cohort is over,
    /// but too few of its attempts are usable (refused, released, or started while the limit was not in use).
    /// `early`: the faster half is enough if it tells enough.
    pub fn measure(&self, flight: &Flight, early: bool) -> Option<Option<Measure>> {
        let cohort = self.cohort();
        if flight.next() < cohort.end {
            return None;
        }
        let pending = flight.active_among(cohort.clone());
        let served = self.len();
        let counted = served + pending;
        if served * 2 < counted {
            return None;
        }
        if served * 2 < self.size as usize || served == 0 {
            return (pending == 0).then_some(None);
        }
        let mut latencies: Vec<f64> =
            self.served.iter().filter(|(number, _)| cohort.contains(number)).map(|(_, latency)| *latency).collect();
        latencies.sort_by(f64::total_cmp);
        let faster = &latencies[..counted.div_ceil(2)];
        let latency = mean(faster);
        let slowest = faster[faster.len() - 1];
        let few = served < counted - counted / TRIM;
        let apart = if latency >= LONG { 1.0 } else { APART };
        if early && (few || latency >= LONG) && flight.all_older(cohort.clone(), micros(slowest * apart)) {
            return Some(Some(Measure { latency, spread: 0.0, count: counted as f64 }));
        }
        if few {
            return None;
        }
        if !flight.all_older(cohort, micros(latencies[served / 2] * LATE)) {
            return None;
        }
        let middle = &latencies[counted / TRIM..counted - counted / TRIM];
        let latency = mean(middle);
        let spread = (middle[middle.len() - 1] - middle[0]) / MIDDLE_SPAN / latency;
        Some(Some(Measure { latency, spread, count: counted as f64 }))
    }

    fn cohort(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.size)
    }
}

fn mean(latencies: &[f64]) -> f64 {
    latencies.iter().sum::<f64>() / latencies.len() as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "latencies are positive, and casts saturate"
)]
pub(super) fn micros(latency: f64) -> Micros {
    Micros(latency as u64)
}
