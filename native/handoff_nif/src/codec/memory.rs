//! Buffers for output of unknown length.
//!
//! Guarantee: between calls a thread keeps at most the buffers of one short output and of one decoding, about 1.5 MB.
//! A panic only loses them.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustler::OwnedBinary;
use state_codec::output::SLACK;
use state_codec::{Storage, WriteError};

use super::heap::{Handle, Heap, prefer_large};

/// The largest buffers that a thread keeps, in terms and bytes.
const KEPT_TERMS: usize = 16 * 1024;
const KEPT_BYTES: usize = 1024 * 1024;

thread_local! {
    static SHORT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The thread's buffer for short outputs. Its pages are mapped already: mapping new ones costs more than a short
/// encoding.
pub fn borrow() -> Vec<u8> {
    SHORT.take()
}

/// Puts it back.
pub fn give_back(memory: Vec<u8>) {
    SHORT.set(memory);
}

/// Decoded terms whose list or map is not complete yet.
#[derive(Default)]
pub struct Stacks<'a> {
    /// Keys of the objects that are open.
    pub keys: Vec<Handle<'a>>,
    /// Values of the arrays and objects that are open.
    pub values: Vec<Handle<'a>>,
    /// Where the keys and the values of each of them start.
    pub open: Vec<(usize, usize)>,
}

thread_local! {
    static STACKS: Cell<(Stacks<'static>, Vec<u8>)> =
        const { Cell::new((Stacks { keys: Vec::new(), values: Vec::new(), open: Vec::new() }, Vec::new())) };
}

/// The thread's memory for reading: stacks, and a buffer for strings with escapes.
pub fn borrow_stacks<'a>() -> (Stacks<'a>, Vec<u8>) {
    let (stacks, buffer) = STACKS.take();
    (stacks.emptied(), buffer)
}

/// Puts it back, unless it has grown large.
pub fn give_back_stacks(stacks: Stacks<'_>, buffer: Vec<u8>) {
    if stacks.values.capacity() <= KEPT_TERMS && stacks.keys.capacity() <= KEPT_TERMS && buffer.capacity() <= KEPT_BYTES
    {
        STACKS.set((stacks.emptied(), buffer));
    }
}

impl Stacks<'_> {
    /// The empty stacks with their allocations: collecting from an empty iterator reuses the memory.
    fn emptied<'b>(self) -> Stacks<'b> {
        fn empty<'a, 'b>(mut stack: Vec<Handle<'a>>) -> Vec<Handle<'b>> {
            stack.clear();
            stack.into_iter().map(|_| unreachable!("emptied before")).collect()
        }
        let Stacks { keys, values, mut open } = self;
        open.clear();
        Stacks { keys: empty(keys), values: empty(values), open }
    }
}

/// Length of the last long output. States of one application are of similar size, and growing a buffer costs more than
/// writing it.
static LAST: AtomicUsize = AtomicUsize::new(0);

/// Bounds of the first buffer, regardless of the size that the caller expects.
const SHORTEST_GUESS: usize = 256 * 1024;
const LONGEST_GUESS: usize = 64 * 1024 * 1024;

/// A binary of the VM that grows: a long output is not copied at the end.
pub struct Growing(OwnedBinary);

impl Growing {
    /// A buffer for an output of about `expected` bytes; 0 means unknown.
    pub fn new(expected: usize) -> Self {
        let guess = if expected == 0 { LAST.load(Ordering::Relaxed) } else { expected };
        let spare = guess / 16 + SLACK;
        let mut memory = OwnedBinary::new(guess.saturating_add(spare).clamp(SHORTEST_GUESS, LONGEST_GUESS));
        prefer_large(&mut memory);
        Growing(memory)
    }

    /// The first `len` bytes as a term.
    pub fn into_binary(mut self, heap: Heap<'_>, len: usize) -> Handle<'_> {
        LAST.store(len, Ordering::Relaxed);
        self.0.realloc_or_copy(len);
        heap.release(self.0)
    }
}

impl AsRef<[u8]> for Growing {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Growing {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Storage for Growing {
    fn grow(&mut self, len: usize) -> Result<(), WriteError> {
        if self.0.realloc(len) { Ok(()) } else { Err(WriteError::OutOfMemory) }
    }
}
