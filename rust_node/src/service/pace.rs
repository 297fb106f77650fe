//! The displayed progress of a drain: its gaps so far, and servers moved per second.
//!
//! Guarantee: the memory does not depend on the number of servers. A quantile is the upper bound of its
//! bucket, at most a fifth above the exact value, which the report has.

use std::collections::VecDeque;

use handoff_core::quantiles::Summary;
use handoff_core::time::Micros;

/// The bounds double every four buckets, from 1 ms to 65 s. The last bucket takes all longer gaps.
const BUCKETS: usize = 66;
/// Ten seconds at two samples a second.
const SAMPLES: usize = 20;

#[derive(Debug)]
pub(super) struct Pace {
    gaps: [u32; BUCKETS],
    longest: Micros,
    /// Pairs of a time and the number of servers moved until then.
    samples: VecDeque<(Micros, u64)>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { gaps: [0; BUCKETS], longest: Micros::ZERO, samples: VecDeque::with_capacity(SAMPLES) }
    }
}

impl Pace {
    pub(super) fn record_gap(&mut self, gap: Micros) {
        let found = (0..BUCKETS - 1).find(|bucket| gap.0 <= bound(*bucket));
        let count = &mut self.gaps[found.unwrap_or(BUCKETS - 1)];
        *count = count.saturating_add(1);
        self.longest = self.longest.max(gap);
    }

    pub(super) fn sample(&mut self, now: Micros, moved: u64) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, moved));
    }

    /// Servers moved per second, over the last ten seconds; zero without a sample.
    pub(super) fn per_second(&self) -> f64 {
        let (Some((from, before)), Some((to, after))) = (self.samples.front(), self.samples.back()) else { return 0.0 };
        let moved = after.saturating_sub(*before);
        let tenths = moved.saturating_mul(10_000_000).checked_div(to.since(*from).0).unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "servers a second")]
        let tenths = tenths as f64;
        tenths / 10.0
    }

    pub(super) fn quantiles(&self) -> Summary {
        let count: u64 = self.gaps.iter().map(|count| u64::from(*count)).sum();
        let at = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let bucket = self.gaps.iter().position(|count| {
                seen += u64::from(*count);
                seen >= rank
            });
            bucket.map_or(0, |bucket| self.upper(bucket))
        };
        Summary { count, p50: at(50), p90: at(90), p99: at(99), max: self.longest.0 }
    }

    /// Pairs of an upper bound in microseconds and the number of gaps, from the first to the last bucket that
    /// is not empty.
    pub(super) fn buckets(&self) -> Vec<(u64, u32)> {
        let has = |count: &u32| *count > 0;
        let (Some(first), Some(last)) = (self.gaps.iter().position(has), self.gaps.iter().rposition(has)) else {
            return Vec::new();
        };
        (first..=last).map(|bucket| (self.upper(bucket), self.gaps[bucket])).collect()
    }

    fn upper(&self, bucket: usize) -> u64 {
        if bucket == BUCKETS - 1 { self.longest.0 } else { bound(bucket).min(self.longest.0.max(1_000)) }
    }
}

/// 1 ms times two to the power of a quarter of the bucket's number.
fn bound(bucket: usize) -> u64 {
    const QUARTERS: [u64; 4] = [1_000, 1_189, 1_414, 1_682];
    QUARTERS[bucket % 4] << (bucket / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Micros = Micros::from_millis;

    #[test]
    fn quantiles_are_at_most_a_fifth_above_the_exact_ones_and_never_below() {
        let mut pace = Pace::default();
        (1..=1_000).for_each(|ms| pace.record_gap(MS(ms)));
        let summary = pace.quantiles();
        assert_eq!((summary.count, summary.max), (1_000, 1_000_000));
        for (got, exact) in [(summary.p50, 500_000), (summary.p90, 900_000), (summary.p99, 990_000)] {
            assert!(got >= exact && got <= exact * 6 / 5, "{got} for {exact}");
        }
    }

    #[test]
    fn buckets_hold_every_gap_and_end_with_the_longest() {
        let mut pace = Pace::default();
        assert_eq!((pace.buckets(), pace.quantiles()), (vec![], Summary::default()));
        [MS(2), MS(3), MS(600_000), Micros(u64::MAX)].into_iter().for_each(|gap| pace.record_gap(gap));
        let buckets = pace.buckets();
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u32>(), 4);
        assert_eq!((buckets[0], buckets[buckets.len() - 1]), ((2_000, 1), (u64::MAX, 2)));
        assert!(buckets.is_sorted_by_key(|(bound, _)| *bound));
    }

    #[test]
    fn the_rate_covers_the_last_ten_seconds() {
        let mut pace = Pace::default();
        assert!(pace.per_second().abs() < f64::EPSILON);
        (0..60).for_each(|half| pace.sample(MS(half * 500), if half < 30 { half * 100 } else { 3_000 + half }));
        assert!((pace.per_second() - 2.0).abs() < 0.1, "{}", pace.per_second());
    }
}
