//! Cache of the keys of one text as terms: the objects of a list have the same few keys.
//!
//! Guarantee: fixed memory, and none for a text with few objects. A key that is not cached is created again.

use super::heap::Handle;

/// Caching starts with this object. For fewer objects a cache costs more than it saves.
const FEW: usize = 3;

const SLOTS: usize = 128;

/// The first and the last eight bytes of a key and its length. Up to sixteen bytes this is the whole key.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ends {
    first: u64,
    last: u64,
    len: usize,
}

#[derive(Clone, Copy)]
struct Slot<'a> {
    ends: Ends,
    term: Handle<'a>,
}

/// Remembered keys of one text.
#[derive(Default)]
pub struct Keys<'a> {
    objects: usize,
    slots: Vec<Option<Slot<'a>>>,
}

impl<'a> Keys<'a> {
    /// Another object starts.
    #[inline]
    pub fn object(&mut self) {
        self.objects += 1;
        if self.objects == FEW {
            self.slots = vec![None; SLOTS];
        }
    }

    /// The term of `key`, made by `make` when it is not remembered.
    #[inline]
    pub fn get(&mut self, key: &[u8], make: impl FnOnce() -> Handle<'a>) -> Handle<'a> {
        if self.slots.is_empty() {
            return make();
        }
        let Some(ends) = Ends::of(key) else {
            return make();
        };
        match &mut self.slots[ends.slot()] {
            Some(known) if known.ends == ends => known.term,
            slot => {
                let term = make();
                *slot = Some(Slot { ends, term });
                term
            }
        }
    }
}

impl Ends {
    /// `None` for a key that has something between its ends.
    #[inline]
    fn of(key: &[u8]) -> Option<Self> {
        let len = key.len();
        if let (Some(first), Some(last), true) = (key.first_chunk(), key.last_chunk(), len <= 16) {
            return Some(Ends { first: u64::from_le_bytes(*first), last: u64::from_le_bytes(*last), len });
        }
        if let (Some(first), Some(last), true) = (key.first_chunk(), key.last_chunk(), len < 8) {
            let (first, last) = (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into());
            return Some(Ends { first, last, len });
        }
        match *key {
            [a, b, c] => Some(Ends { first: u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]), last: 0, len }),
            [a, b] => Some(Ends { first: u64::from_le_bytes([a, b, 0, 0, 0, 0, 0, 0]), last: 0, len }),
            [a] => Some(Ends { first: a.into(), last: 0, len }),
            _ => None,
        }
    }

    /// The high bits of a product depend on all bits of its factors.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "seven bits are left")]
    fn slot(&self) -> usize {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (self.first ^ self.last.rotate_left(29) ^ self.len as u64).wrapping_mul(ODD);
        (mixed >> (u64::BITS - SLOTS.ilog2())) as usize
    }
}
