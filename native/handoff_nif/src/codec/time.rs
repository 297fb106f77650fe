//! Charges calls to the time slice of their process.
//!
//! Guarantee: every byte is charged. The VM counts in hundredths of a slice of a millisecond. A smaller remainder is kept
//! and charged to the next call on this thread: rounded up, small states would be charged ten times their time.

use std::cell::Cell;

use super::heap::Heap;

/// Nanoseconds of a hundredth of a time slice.
const HUNDREDTH: usize = 10_000;

/// Nanoseconds of a call that does nothing.
const CALL: usize = 100;

/// Quarters of a nanosecond to write a byte: between the fastest and the slowest machine measured.
pub const WRITE: usize = 8;

/// Quarters of a nanosecond to read a byte.
pub const READ: usize = 16;

thread_local! {
    static OWED: Cell<usize> = const { Cell::new(0) };
}

/// Charges a call that handled `bytes` at `rate` quarters of a nanosecond each.
pub fn charge(heap: Heap<'_>, bytes: usize, rate: usize) {
    let owed = OWED.get() + CALL + bytes.saturating_mul(rate) / 4;
    OWED.set(owed % HUNDREDTH);
    if owed >= HUNDREDTH {
        heap.consume(owed / HUNDREDTH);
    }
}
