//! The circuit breaker of a drain: if its attempts keep failing, going on would leave one server after the other stopped,
//! which is worse than no drain.
//!
//! Guarantee: once open it stays open. What counts as one failure is the caller's decision (many attempts failing with
//! the same dead target are one).

use std::collections::VecDeque;

/// The window of the failure ratio: small enough that a drain of a hundred servers can use it.
const WINDOW: usize = 20;
/// The ratio is ignored below this many attempts: one failure in the first two is 50 %.
const LEAST_SAMPLES: usize = 10;

/// Counts failures in a row and the share of failures among the latest attempts.
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

    /// An attempt succeeded.
    pub fn succeeded(&mut self) {
        self.consecutive = 0;
        self.note(false);
    }

    /// An attempt failed.
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
    fn failures_in_a_row_open_it_and_a_success_in_between_does_not() {
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
    fn a_high_share_opens_it_but_not_on_a_handful_of_attempts() {
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
