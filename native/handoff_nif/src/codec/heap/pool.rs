//! Strings that share a binary. A binary of its own costs a string of a few hundred bytes more to make, and to give up later,
//! than everything else about it.
//!
//! Guarantee: a pool is no larger than what was put before it and than [`LARGEST`], so that what it wastes is bounded by
//! what it holds, and what one string keeps in memory by that.

use rustler::sys;
use rustler::sys::ErlNifTerm;

use super::{Handle, Heap};

/// The smallest and the largest pool.
const SMALLEST: usize = 4 * 1024;
const LARGEST: usize = 64 * 1024;

/// Where the strings of one call go.
#[derive(Default)]
pub struct Pool<'a> {
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
    /// A binary with a copy of `bytes`: a part of a pool, or on its own.
    #[inline]
    pub fn make_binary(&mut self, heap: Heap<'a>, bytes: &[u8]) -> Handle<'a> {
        let size = self.total.min(LARGEST);
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
