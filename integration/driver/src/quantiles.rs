//! Quantiles by nearest rank: every reported value was measured, never interpolated.

use serde::Serialize;

/// Median and upper quantiles of durations, in milliseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Quantiles {
    /// How many values there were. With 0 the other fields are `None`.
    pub count: usize,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

impl Quantiles {
    /// Quantiles of `micros`, in any order.
    pub fn of_micros(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let rank = |percent: usize| {
            let nth = (micros.len() * percent).div_ceil(100).max(1);
            micros.get(nth - 1).map(|&value| millis(value))
        };
        Self { count: micros.len(), p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) }
    }
}

/// The middle one of `values`, 0 without any; of an even number the lower of the two middle ones.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Microseconds as milliseconds; exact for every duration this program can see.
#[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
pub fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank_returns_measured_values_only() {
        let quantiles = Quantiles::of_micros((1..=200).rev().map(|n| n * 1_000).collect());
        assert_eq!(
            quantiles,
            Quantiles { count: 200, p50: Some(100.0), p90: Some(180.0), p99: Some(198.0), max: Some(200.0) }
        );
    }

    #[test]
    fn a_single_value_is_every_quantile() {
        let quantiles = Quantiles::of_micros(vec![1_234]);
        assert_eq!(
            quantiles,
            Quantiles { count: 1, p50: Some(1.234), p90: Some(1.234), p99: Some(1.234), max: Some(1.234) }
        );
    }

    #[test]
    fn no_values_have_no_quantiles() {
        assert_eq!(Quantiles::of_micros(vec![]), Quantiles::default());
    }
}
