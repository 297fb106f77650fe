//! Exact quantiles of spans, by nearest rank.
//!
//! Guarantee: every quantile is one of the recorded values. Each takes four bytes; spans over 71 minutes
//! count as 71 minutes.

use crate::time::Micros;

/// Recorded spans.
#[derive(Debug, Clone, Default)]
pub struct Quantiles {
    spans: Vec<u32>,
}

/// The summary of a set of spans in microseconds; all zero for an empty set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Summary {
    /// The number of spans.
    pub count: u64,
    /// Half are at most this long.
    pub p50: u64,
    /// Nine in ten are at most this long.
    pub p90: u64,
    /// Ninety-nine in a hundred are at most this long.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Quantiles {
    /// Adds one span.
    pub fn record(&mut self, span: Micros) {
        self.spans.push(u32::try_from(span.0).unwrap_or(u32::MAX));
    }

    /// Sorts a copy, so the function is for reports and not for loops.
    pub fn summary(&self) -> Summary {
        let mut sorted = self.spans.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().map_or(0, u64::from)
        };
        Summary { count: sorted.len() as u64, p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_hundred_spans_are_by_nearest_rank() {
        let mut quantiles = Quantiles::default();
        (1..=100).rev().for_each(|span| quantiles.record(Micros(span)));
        assert_eq!(quantiles.summary(), Summary { count: 100, p50: 50, p90: 90, p99: 99, max: 100 });
    }

    #[test]
    fn quantiles_of_one_span_are_that_span_and_of_none_are_zero() {
        let mut quantiles = Quantiles::default();
        assert_eq!(quantiles.summary(), Summary::default());
        quantiles.record(Micros(7));
        assert_eq!(quantiles.summary(), Summary { count: 1, p50: 7, p90: 7, p99: 7, max: 7 });
    }
}
