//! The circuit breaker of a drain. If attempts keep failing, continuing would stop one server after the other
//! without starting it elsewhere, which is worse than no drain.
//!
//! Guarantee: once open, the breaker stays open. The caller decides what counts as one failure (many attempts
//! that fail with the same dead target are one).

use std::collections::VecDeque;

/// The window of the failure ratio: small enough that a drain of a hundred servers can use it.
const WINDOW: usize = 20;
/// Below this many attempts the ratio is ignored: one failure in two attempts would be 50 %.
const LEAST_SAMPLES: usize = 10;

/// Counts consecutive failures, and the ratio of failures among the latest attempts.
#[derive(Debug, Clone)]
pub struct Breaker {
    max_consecutive: u32,
    max_ratio: f64,
    consecutive: u32,
    latest: VecDeque<bool>,
    open: bool,
}

impl Breaker {
    /// Opens at `max_consecutive` failures in a row, or when more than `max_ratio` of the latest attempts failed.
    pub fn new(max_consecutive: u32, max_ratio: f64) -> Self {
        Breaker { max_consecutive, max_ratio, consecutive: 0, latest: VecDeque::with_capacity(WINDOW), open: false }
    }

    /// Records a successful attempt.
    pub fn succeeded(&mut self) {
        self.consecutive = 0;
        self.note(false);
    }

    /// Records a failed attempt.
    pub fn failed(&mut self) {
        self.consecutive += 1;
        self.note(true);
        let failures = self.latest.iter().filter(|failed| **failed).count();
        #[expect(clippy::cast_precision_loss, reason = "at most WINDOW")]
        let ratio = failures as f64 / self.latest.len() as f64;
        self.open |=
            self.consecutive >= self.max_consecutive || (self.latest.len() >= LEAST_SAMPLES && ratio > self.max_ratio);
    }

    /// Whether the drain should end.
    pub fn is_open(&self) -> bool {
        self.open
    }

    fn note(&mut self, failed: bool) {
        if self.latest.len() == WINDOW {
            self.latest.pop_front();
        }
        self.latest.push_back(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_failures_open_it_and_a_success_resets_the_count() {
        let mut breaker = Breaker::new(3, 1.0);
        breaker.failed();
        breaker.failed();
        breaker.succeeded();
        breaker.failed();
        breaker.failed();
        assert!(!breaker.is_open());
        breaker.failed();
        assert!(breaker.is_open());
        breaker.succeeded();
        assert!(breaker.is_open(), "it stays open");
    }

    #[test]
    fn a_high_ratio_opens_it_after_enough_attempts() {
        let mut breaker = Breaker::new(1_000, 0.5);
        (0..LEAST_SAMPLES - 1).for_each(|_| breaker.failed());
        assert!(!breaker.is_open(), "all of too few");
        let mut breaker = Breaker::new(1_000, 0.5);
        for _ in 0..LEAST_SAMPLES {
            breaker.succeeded();
            breaker.failed();
            assert!(!breaker.is_open(), "half of them, and more than half is needed");
        }
        breaker.failed();
        assert!(breaker.is_open(), "11 of the latest 20");
    }
}
