//! What two measurements say together: whether more attempts at a time only wait longer.
//!
//! With a queue in the store, latency grows in proportion to the limit and throughput does not; without a
//! queue it is the reverse. So in any store `(L_high / L_low - 1) / (high / low - 1)` is 0 below the knee and
//! 1 above it, and if it is 1, the knee is at `high · L_low / L_high`.

/// Up to this growth of latency, as a part of the step, a step up counts as free. Simulated: above the noise
/// of eight attempts of a step by a quarter, below what two such steps may cost together.
const FREE: f64 = 0.15;
/// The same for large steps: the growth that would show a queue of a quarter more attempts than slots.
/// Derived: [`FREE`] of a quarter.
const MOST_FREE: f64 = 0.0375;
/// Above this growth a step costs more than it gains, so it is undone. Derived: Kleinrock's power, throughput
/// divided by latency, falls from here on.
const TOO_DEAR: f64 = 0.5;
/// If latency falls by less than this factor at a lower limit, there was no queue. Simulated: twice the noise
/// of the least spread.
const NO_QUEUE: f64 = 1.05;
/// If latency falls by this part of the possible fall or more, all of it was queueing and the knee is further
/// down. Simulated.
const ALL_QUEUE: f64 = 0.75;
/// The delay of a queue is proportional to the limit. A change that exceeds this by more than this part has
/// another cause. Simulated on machines that stall.
const IMPOSSIBLE: f64 = 0.1;
/// If latency at an unchanged limit rises or falls by these factors, the store has changed; less is noise.
/// Simulated.
const SLOWER: f64 = 1.2;
const FASTER: f64 = 0.95;
/// If the second measurement, at a higher limit, is below this part of the first one, the first one was of a
/// cold start. Simulated: one in twenty pairs differs as much by chance.
const COLD: f64 = 0.96;
/// Up to this part of the possible change, noise is more likely than a queue. Simulated.
const SLIGHT: f64 = 0.25;

/// The change of latency from a lower limit to a higher one, or from an earlier measurement to a later one
/// at the same limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    /// Latency at the higher limit divided by latency at the lower one.
    pub ratio: f64,
    /// The higher limit divided by the lower one; a queue changes latency by at most this factor.
    pub possible: f64,
    /// The standard error of `ratio`.
    pub noise: f64,
}

impl Change {
    /// The same for a step down, where `ratio` is as uncertain as the latency of the higher limit.
    pub fn of_the_higher(self) -> Change {
        Change { noise: self.noise * self.ratio, ..self }
    }

    fn growth(self) -> f64 {
        self.possible - 1.0
    }

    fn too_dear(self) -> f64 {
        1.0 + TOO_DEAR * self.growth()
    }

    fn all_queue(self) -> f64 {
        1.0 + ALL_QUEUE * self.growth()
    }

    /// A step up: latency fell, so the lower limit was measured during a cold start.
    pub fn was_cold(self) -> bool {
        self.ratio < COLD && self.ratio < 1.0 - self.noise
    }

    /// A step up: latency did not grow.
    pub fn is_free(self) -> bool {
        self.ratio <= 1.0 + (FREE * self.growth()).min(MOST_FREE) + self.noise
    }

    /// A step up that is not free: throughput gains as much as latency loses.
    pub fn is_affordable(self) -> bool {
        self.ratio <= self.too_dear()
    }

    /// A step down: the fall is too small for the queue that was suspected.
    pub fn is_slight(self) -> bool {
        self.ratio <= 1.0 + SLIGHT * self.growth()
    }

    /// A step up that is not free: with more attempts it may turn out to be affordable.
    pub fn may_be_affordable(self) -> bool {
        self.ratio < self.too_dear() + 2.0 * self.noise
    }

    /// No queue changes latency that much.
    pub fn is_impossible(self) -> bool {
        self.ratio > self.possible * (1.0 + IMPOSSIBLE) + 2.0 * self.noise
    }

    /// A step down: latency did not fall.
    pub fn is_no_queue(self) -> bool {
        self.ratio <= NO_QUEUE
    }

    /// A step down: all of the latency that is gone was queueing.
    pub fn is_all_queue(self) -> bool {
        self.ratio >= self.all_queue()
    }

    /// A step down: more attempts may show something else.
    pub fn is_unsure(self) -> bool {
        (self.ratio - NO_QUEUE).abs().min((self.ratio - self.all_queue()).abs()) < self.noise
    }

    /// A step down: attempts take longer although fewer are in flight.
    pub fn is_inverse(self) -> bool {
        self.ratio < 1.0 / (SLOWER + 2.0 * self.noise)
    }

    /// The same limit: the store has become slower.
    pub fn is_slower(self) -> bool {
        self.ratio > SLOWER + 2.0 * self.noise
    }

    /// The same limit: the store has become faster.
    pub fn is_faster(self) -> bool {
        self.ratio < FASTER - 2.0 * self.noise
    }
}
