//! How far a measurement can be believed.
//!
//! Two things make it differ from what the store alone would show. The attempts differ among themselves
//! (*noise*), so a decision that is close needs more of them. And a stall of the machine delays all attempts
//! in flight, as a queue does; but it passes, so a decision to go down, or not to go up, needs a second look
//! at attempts that start later.

use super::change::Change;
use super::window::Measure;

/// The lowest spread that is assumed for an attempt, because a few equal latencies prove nothing. Simulated:
/// that of four requests of 10 ms with 2 ms of jitter.
const LEAST_SPREAD: f64 = 0.03;
/// By this factor a trimmed mean is less certain than a mean. Derived, for the middle three fifths of a normal
/// distribution.
const TRIMMING: f64 = 1.15;
/// Weight of a new measurement in the running spread. Simulated.
const SPREAD_WEIGHT: f64 = 0.3;
/// Noise below this part of a measurement is ignored. Above it the measurement is extended. Derived: it is
/// less than a third of the smallest difference that decides.
const CLEAR: f64 = 0.04;
/// The number of attempts up to which a measurement is extended. Simulated.
const LOOK_CLOSER: usize = 20;
/// The same in generations of attempts: at low limits a measurement takes long. Simulated.
const GENERATIONS: usize = 3;
/// The number of machine stalls up to which each one delays decisions further. Simulated on machines with six
/// stalls a second.
const MOST_STALLS: u32 = 2;

#[derive(Debug, Clone)]
pub(super) struct Doubt {
    /// Running estimate of the spread of one attempt.
    spread: Option<f64>,
    /// How many times the present decision was put off because the machine may have been busy.
    looks: u32,
    /// The number of stalls of the machine seen so far, up to [`MOST_STALLS`].
    stalls: u32,
}

impl Doubt {
    pub fn new() -> Self {
        Doubt { spread: None, looks: 0, stalls: 0 }
    }

    /// Takes note of how much the attempts of a measurement differed.
    pub fn measured(&mut self, measure: Measure) {
        let before = self.spread.unwrap_or(measure.spread);
        self.spread = Some(before + (measure.spread - before) * SPREAD_WEIGHT);
    }

    /// The change of latency from `low` to `high`, which a queue changes by at most the factor `possible`.
    pub fn change(&self, low: Measure, high: Measure, possible: f64) -> Change {
        let spread = self.spread.unwrap_or(0.0).max(LEAST_SPREAD);
        let noise = spread * TRIMMING * (1.0 / low.count + 1.0 / high.count).sqrt();
        Change { ratio: high.latency / low.latency, possible, noise }
    }

    /// Whether a change that is close to a threshold is worth more than the `attempts` at this limit that show
    /// it.
    pub fn wants_more(&self, change: Change, attempts: usize, limit: u32) -> bool {
        change.noise > CLEAR && attempts < LOOK_CLOSER.min(GENERATIONS * limit as usize)
    }

    /// Whether to measure again before the decision: at most `most` times, and once more for each stall seen
    /// so far.
    pub fn look_again(&mut self, most: u32) -> bool {
        let looks = self.looks < most + self.stalls;
        self.looks += u32::from(looks);
        looks
    }

    /// The latest measurement was not late, so the earlier ones of this decision met stalls.
    pub fn looked(&mut self) {
        self.stalls = (self.stalls + self.looks).min(MOST_STALLS);
    }

    /// A stall has ended that was taken for a queue.
    pub fn stalled(&mut self) {
        self.stalls = (self.stalls + 1).min(MOST_STALLS);
    }

    /// The next decision begins.
    pub fn decided(&mut self) {
        self.looks = 0;
    }
}
