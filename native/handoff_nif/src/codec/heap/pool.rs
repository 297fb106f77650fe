//! Strings that share a binary. For a string of a few hundred bytes, allocating and freeing a binary takes
//! most of the time.
//!
//! Guarantee: a pool is no larger than the strings before it, and at most 64 KB, or 4 MB for long strings. So
//! unused memory is bounded by the size of the strings, and one string keeps at most one pool in memory.

use rustler::sys;
use rustler::sys::ErlNifTerm;

use super::{Handle, Heap};

/// The smallest pool, and the largest one of strings that are not long.
const SMALLEST: usize = 4 * 1024;
const LARGEST: usize = 64 * 1024;

/// Strings from this size on are long. The VM returns the memory of blocks below half a megabyte as soon as
/// it can, and reuses that of larger ones. So long strings that share large blocks need no new pages.
const LONG: usize = LARGEST / 4;
const LARGEST_LONG: usize = 4 * 1024 * 1024;

/// The pools of one call.
pub struct Pools<'a> {
    short: Pool<'a>,
    long: Pool<'a>,
}

impl<'a> Pools<'a> {
    /// No strings yet.
    pub fn new() -> Self {
        Pools { short: Pool::new(LARGEST), long: Pool::new(LARGEST_LONG) }
    }

    /// A binary with a copy of `bytes`: a part of a pool, or on its own.
    #[inline]
    pub fn make_binary(&mut self, heap: Heap<'a>, bytes: &[u8]) -> Handle<'a> {
        let pool = if bytes.len() <= LONG { &mut self.short } else { &mut self.long };
        pool.make_binary(heap, bytes)
    }
}

/// The pool of short or of long strings.
struct Pool<'a> {
    largest: usize,
    /// Bytes of all strings so far.
    total: usize,
    open: Option<Open<'a>>,
}

/// A binary that is not full yet.
struct Open<'a> {
    binary: Handle<'a>,
    data: *mut u8,
    len: usize,
    used: usize,
}

impl<'a> Pool<'a> {
    fn new(largest: usize) -> Self {
        Pool { largest, total: 0, open: None }
    }

    #[inline]
    fn make_binary(&mut self, heap: Heap<'a>, bytes: &[u8]) -> Handle<'a> {
        let size = self.total.min(self.largest);
        self.total = self.total.saturating_add(bytes.len());
        if size < SMALLEST || bytes.len() > size / 4 {
            return heap.make_binary(bytes);
        }
        let open = match &mut self.open {
            Some(open) if open.len - open.used >= bytes.len() => open,
            full => full.insert(Open::new(heap, size)),
        };
        open.put(heap, bytes)
    }
}

impl<'a> Open<'a> {
    fn new(heap: Heap<'a>, len: usize) -> Self {
        let mut term = ErlNifTerm::default();
        // SAFETY: see the top of `heap.rs`. The VM lets the bytes be written until the call returns.
        let data = unsafe { sys::enif_make_new_binary(heap.env, len, &raw mut term) };
        Open { binary: Handle::new(term), data, len, used: 0 }
    }

    /// Copies `bytes`, for which there is room, behind the others.
    #[inline]
    fn put(&mut self, heap: Heap<'a>, bytes: &[u8]) -> Handle<'a> {
        assert!(bytes.len() <= self.len - self.used, "the caller asked");
        // SAFETY: there is room behind `used`; no handle of the whole binary was given out, and none of a part behind `used`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data.add(self.used), bytes.len()) };
        let part = heap.make_part(self.binary, self.used, bytes.len());
        self.used += bytes.len();
        part
    }
}
