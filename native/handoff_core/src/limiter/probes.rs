//! When a limit that holds is probed next, and in which direction.
//!
//! Guarantee: probes become rarer as long as they find nothing, down to one in [`LONGEST_WAIT`] generations
//! of attempts, and frequent again as soon as something has changed.

use super::tuning::START;

/// Generations of attempts between probes: at first, and the maximum after probes that found nothing.
/// Simulated: a drain of 500 servers on 8 slots has sixty generations, so it probes five times.
const FIRST_WAIT: u32 = 2;
const LONGEST_WAIT: u32 = 16;
/// The same at a learnt limit that was confirmed: short, in case the store can serve more now. Simulated.
const WAIT_LEARNT: u32 = 4;
/// The same at the ceiling, if no queue was met: a probe is useful only after a change of the store.
/// Simulated.
const WAIT_AT_CEILING: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Probe {
    Up,
    Down,
}

#[derive(Debug, Clone)]
pub(super) struct Probes {
    /// Generations of attempts to hold before the next probe.
    wait: u32,
    next: Probe,
}

impl Probes {
    pub fn new() -> Self {
        Probes { wait: FIRST_WAIT, next: Probe::Up }
    }

    /// The knee may be elsewhere now, so the next probe is due soon.
    pub fn soon(&mut self) {
        self.wait = FIRST_WAIT;
    }

    /// The next probe is due soon, and in this direction.
    pub fn soon_in(&mut self, direction: Probe) {
        *self = Probes { wait: FIRST_WAIT, next: direction };
    }

    /// A limit of an earlier drain was confirmed.
    pub fn confirmed(&mut self) {
        self.wait = WAIT_LEARNT;
    }

    /// The latest probe, or something else that shows the same, has found nothing new.
    pub fn later(&mut self) {
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// The probe that is due after `attempts` at this limit, if one is. At the ceiling there is only one
    /// direction.
    pub fn due(&mut self, attempts: u32, limit: u32, at_ceiling: bool) -> Option<Probe> {
        let wait = if at_ceiling { self.wait.max(WAIT_AT_CEILING) } else { self.wait };
        if attempts / limit.max(START) < wait {
            return None;
        }
        if self.next == Probe::Up && !at_ceiling {
            self.next = Probe::Down;
            return Some(Probe::Up);
        }
        self.next = Probe::Up;
        self.later();
        Some(Probe::Down)
    }
}
