//! Virtual time: a queue of events ordered by their times.
//!
//! Guarantee: time never goes back. Events of the same time happen in the order in which they were added.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use handoff_core::time::Micros;

#[derive(Debug)]
pub struct EventQueue<T> {
    now: Micros,
    entered: u64,
    heap: BinaryHeap<Reverse<Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    due: Micros,
    order: u64,
    what: T,
}

impl<T> EventQueue<T> {
    pub fn new(now: Micros) -> Self {
        EventQueue { now, entered: 0, heap: BinaryHeap::new() }
    }

    pub fn now(&self) -> Micros {
        self.now
    }

    /// Adds an event. One that is due in the past happens now.
    pub fn at(&mut self, due: Micros, what: T) {
        self.entered += 1;
        self.heap.push(Reverse(Entry { due: due.max(self.now), order: self.entered, what }));
    }

    /// Adds an event that happens after a span of time.
    pub fn after(&mut self, span: Micros, what: T) {
        self.at(self.now + span, what);
    }

    /// Takes the next event, and moves the time there.
    pub fn advance(&mut self) -> Option<T> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.due;
        Some(entry.what)
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

/// A span of `ms` milliseconds, which may be a fraction. A negative one counts as 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, which is meant")]
pub fn millis(ms: f64) -> Micros {
    Micros((ms * 1_000.0) as u64)
}
