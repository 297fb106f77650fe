//! Limits the number of starts per second and spreads them evenly.
//!
//! Guarantee: in any span of time there are at most as many starts as intervals, plus those that fit into
//! [`CATCH_UP`].

use crate::time::Micros;

/// How late a start may be without delaying the next ones. Polls are a few milliseconds late on a busy
/// machine.
pub const CATCH_UP: Micros = Micros::from_millis(20);

/// See the module documentation.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    interval: Micros,
    next: Micros,
}

impl Pace {
    /// `None` means no limit.
    pub fn new(per_second: Option<u32>) -> Pace {
        let interval =
            per_second.map_or(Micros::ZERO, |starts| Micros(1_000_000_u64.div_ceil(u64::from(starts.max(1)))));
        Pace { interval, next: Micros::ZERO }
    }

    /// Whether a start is allowed now.
    pub fn is_open(&self, now: Micros) -> bool {
        self.next <= now
    }

    /// The time of the next allowed start.
    pub fn next(&self) -> Micros {
        self.next
    }

    /// Records a start.
    pub fn start(&mut self, now: Micros) {
        self.next = self.next.max(now - CATCH_UP) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of starts in a second with a poll every `poll_us`.
    fn in_a_second(per_second: u32, poll_us: u64) -> u64 {
        let mut pace = Pace::new(Some(per_second));
        let mut starts = 0;
        let begin = 10_000_000;
        for now in (begin..begin + 1_000_000).step_by(usize::try_from(poll_us).unwrap()).map(Micros) {
            while pace.is_open(now) {
                pace.start(now);
                starts += 1;
            }
        }
        starts
    }

    #[test]
    fn late_polls_lose_no_starts_and_a_pause_is_not_made_up() {
        for (per_second, poll_us) in [(1, 1_000), (10, 7_000), (100, 15_000), (1_000, 5_000), (10_000, 10_000)] {
            let most = u64::from(per_second) + u64::from(per_second) / 50 + 1;
            let starts = in_a_second(per_second, poll_us);
            assert!((u64::from(per_second)..=most).contains(&starts), "{starts} of {per_second}");
        }
        let mut pace = Pace::new(Some(2));
        pace.start(Micros::from_millis(1_000));
        pace.start(Micros::from_millis(60_000));
        assert!(!pace.is_open(Micros::from_millis(60_400)));
    }

    #[test]
    fn a_start_is_always_allowed_without_a_limit() {
        let mut pace = Pace::new(None);
        pace.start(Micros(5));
        pace.start(Micros(5));
        assert!(pace.is_open(Micros(5)));
    }
}
