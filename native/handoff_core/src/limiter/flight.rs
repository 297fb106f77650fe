//! The attempts in flight, with their start times, and which of them wait for something other than the store.
//!
//! Guarantee: every permit counts from its start to its first finish, in whatever order attempts end. A
//! second finish is ignored. Memory is one entry per attempt in flight.
//!
//! Attempts are numbered as they start, and a clock that runs backwards is treated as standing still, so the
//! order of numbers is the order of starts. An attempt that is far older than attempts that were served
//! meanwhile is *overdue*: it waits for something other than the store (a slow `terminate`, a connection that
//! loses messages). It keeps its permit, but no longer counts as load.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::time::Micros;

/// Proof that an attempt was started. It is returned when the attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    number: u64,
    start: Micros,
    /// The value of the load integral at the start.
    area: u128,
}

/// The measured values of an attempt at its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ended {
    pub number: u64,
    /// The average number of attempts in flight during this attempt, without overdue ones.
    pub held: f64,
    pub overdue: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Flight {
    active: BTreeMap<u64, Micros>,
    overdue: BTreeSet<u64>,
    last: u64,
    now: Micros,
    /// Integral of active attempts over time, in attempt-microseconds.
    area: u128,
}

impl Flight {
    pub fn start(&mut self, now: Micros) -> Permit {
        self.advance(now);
        self.last += 1;
        self.active.insert(self.last, self.now);
        Permit { number: self.last, start: self.now, area: self.area }
    }

    /// Returns `None` when this permit has already been returned.
    pub fn finish(&mut self, now: Micros, permit: Permit) -> Option<Ended> {
        self.advance(now);
        let overdue = self.overdue.remove(&permit.number);
        if !overdue && self.active.remove(&permit.number).is_none() {
            return None;
        }
        let life = self.now.since(permit.start).0.max(1);
        let held = (self.area - permit.area) as f64 / life as f64;
        Some(Ended { number: permit.number, held, overdue })
    }

    /// Marks attempts as overdue that have been active for longer than `span`.
    pub fn overdue_after(&mut self, span: Micros) {
        let before = self.now.since(span);
        while let Some(oldest) = self.active.first_entry()
            && *oldest.get() < before
        {
            self.overdue.insert(*oldest.key());
            oldest.remove();
        }
    }

    pub fn in_flight(&self) -> u32 {
        count(self.active.len() + self.overdue.len())
    }

    pub fn overdue(&self) -> u32 {
        count(self.overdue.len())
    }

    /// The number of the next attempt.
    pub fn next(&self) -> u64 {
        self.last + 1
    }

    /// The first of the latest attempts that all started within the last `span`; [`Flight::next`] if there is
    /// none.
    pub fn first_within(&self, span: Micros) -> u64 {
        let from = self.now.since(span);
        self.active
            .iter()
            .rev()
            .take_while(|(_, start)| **start >= from)
            .last()
            .map_or(self.next(), |(number, _)| *number)
    }

    /// How many of these attempts are active.
    pub fn active_among(&self, numbers: Range<u64>) -> usize {
        self.active.range(numbers).count()
    }

    /// Whether every active one of these attempts is at least `span` old.
    pub fn all_older(&self, numbers: Range<u64>, span: Micros) -> bool {
        self.active.range(numbers).next_back().is_none_or(|(_, start)| self.now.since(*start) >= span)
    }

    fn advance(&mut self, now: Micros) {
        let span = now.since(self.now);
        self.area += u128::from(span.0) * self.active.len() as u128;
        self.now = self.now + span;
    }
}

fn count(attempts: usize) -> u32 {
    u32::try_from(attempts).unwrap_or(u32::MAX)
}
