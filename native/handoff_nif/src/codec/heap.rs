//! The VM's terms: every call that reads or creates one.
//!
//! Guarantee: a [`Handle`] belongs to the call that read or created it and cannot outlive it. `enif_term_type` is not
//! used: on OTP 29 it ends the VM for a native record. Every check used here is safe for any term.
//!
//! What every unsafe block here relies on: `env` is the environment of the NIF call that is running, because only
//! `calls.rs` makes a [`Heap`], for the length of the call; every handle is a term of that environment, because only this file makes them.
#![allow(unsafe_code)]

mod calls;
mod pages;
mod pool;

pub(super) use calls::{nif, run};

use std::ffi::{c_char, c_uint};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rustler::sys::{
    self, ErlNifBinary, ErlNifCharEncoding, ErlNifEnv, ErlNifMapIterator, ErlNifMapIteratorEntry, ErlNifTerm,
};
use rustler::{Atom, Env, OwnedBinary};
use state_codec::output::copy_small;

pub use pages::prefer_large;
pub use pool::Pools;

/// Every VM refuses duplicate keys in a map of at most this many pairs.
const SMALL_MAP: usize = 32;

/// A term of the running call.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Handle<'a>(ErlNifTerm, PhantomData<&'a ()>);

impl<'a> Handle<'a> {
    fn new(term: ErlNifTerm) -> Self {
        Handle(term, PhantomData)
    }

    /// The VM's representation of the term.
    #[inline]
    pub fn word(self) -> Word {
        Word(self.0)
    }
}

/// The VM's representation of a term, only for comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(ErlNifTerm);

impl Word {
    /// Its bits.
    #[inline]
    pub fn bits(self) -> usize {
        // SAFETY: rustler declares the VM's word as a transparent wrapper of this type.
        unsafe { std::mem::transmute::<ErlNifTerm, usize>(self.0) }
    }
}

/// The likely type of a term, from the tag bits that every VM so far uses. It only decides which check comes first, never
/// the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// A list that is not empty.
    Cell,
    /// An atom, a small integer, the empty list.
    Word,
    /// A binary, a float, a map and everything else that takes memory.
    Boxed,
}

impl Handle<'_> {
    /// The likely type of the term.
    #[inline]
    pub fn guess(self) -> Guess {
        match self.word().bits() & 3 {
            1 => Guess::Cell,
            3 => Guess::Word,
            _ => Guess::Boxed,
        }
    }
}

impl From<Atom> for Handle<'_> {
    /// An atom is a term of every environment.
    fn from(atom: Atom) -> Self {
        Handle::new(atom.as_c_arg())
    }
}

/// The environment in which terms are read and created.
#[derive(Clone, Copy)]
pub struct Heap<'a> {
    env: *mut ErlNifEnv,
    lifetime: PhantomData<Env<'a>>,
}

impl<'a> Heap<'a> {
    /// The bytes of a binary; `None` for anything else, bit strings that are not whole bytes included.
    #[inline]
    pub fn bytes(self, term: Handle<'a>) -> Option<&'a [u8]> {
        let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
        // SAFETY: on success the VM filled the struct in; the bytes neither move nor change while the call runs.
        unsafe {
            if sys::enif_inspect_binary(self.env, term.0, binary.as_mut_ptr()) == 0 {
                return None;
            }
            let binary = binary.assume_init();
            if binary.size == 0 { Some(&[]) } else { Some(std::slice::from_raw_parts(binary.data, binary.size)) }
        }
    }

    /// An integer of at most 64 bits.
    #[inline]
    pub fn integer(self, term: Handle<'a>) -> Option<i64> {
        let mut integer = 0;
        // SAFETY: see the top of this file.
        (unsafe { sys::enif_get_int64(self.env, term.0, &raw mut integer) } != 0).then_some(integer)
    }

    #[inline]
    pub fn float(self, term: Handle<'a>) -> Option<f64> {
        let mut float = 0.0;
        // SAFETY: see the top of this file.
        (unsafe { sys::enif_get_double(self.env, term.0, &raw mut float) } != 0).then_some(float)
    }

    /// Head and tail of a list that is not empty.
    #[inline]
    pub fn cell(self, term: Handle<'a>) -> Option<(Handle<'a>, Handle<'a>)> {
        let (mut head, mut tail) = (ErlNifTerm::default(), ErlNifTerm::default());
        // SAFETY: see the top of this file.
        let found = unsafe { sys::enif_get_list_cell(self.env, term.0, &raw mut head, &raw mut tail) } != 0;
        found.then(|| (Handle::new(head), Handle::new(tail)))
    }

    #[inline]
    pub fn is_atom(self, term: Handle<'a>) -> bool {
        // SAFETY: see the top of this file.
        unsafe { sys::enif_is_atom(self.env, term.0) != 0 }
    }

    /// The text of an atom in Latin-1, one byte per character; `None` if a character is above U+00FF.
    #[inline]
    pub fn latin1(self, atom: Handle<'a>, buffer: &mut [u8; 256]) -> Option<usize> {
        let encoding = ErlNifCharEncoding::ERL_NIF_LATIN1;
        let buffer = buffer.as_mut_ptr().cast::<c_char>();
        // SAFETY: an atom has at most 255 characters, and the VM writes no more than the 256 bytes it is told of.
        let written = unsafe { sys::enif_get_atom(self.env, atom.0, buffer, 256, encoding) };
        // The count includes the final zero.
        usize::try_from(written).ok().filter(|&written| written > 0).map(|written| written - 1)
    }

    /// The pairs of a map, in its own order.
    #[inline]
    pub fn pairs(self, term: Handle<'a>) -> Option<Pairs<'a>> {
        let mut iterator = MaybeUninit::uninit();
        let head = ErlNifMapIteratorEntry::ERL_NIF_MAP_ITERATOR_HEAD;
        // SAFETY: on success the VM filled the iterator in; `Pairs` gives it back.
        unsafe {
            let found = sys::enif_map_iterator_create(self.env, term.0, iterator.as_mut_ptr(), head) != 0;
            found.then(|| Pairs { heap: self, iterator: iterator.assume_init() })
        }
    }

    /// How many pairs a map has; 0 for anything else.
    #[inline]
    pub fn size(self, map: Handle<'a>) -> usize {
        let mut size = 0;
        // SAFETY: see the top of this file.
        unsafe { sys::enif_get_map_size(self.env, map.0, &raw mut size) };
        size
    }

    /// The value of a key in a map.
    pub fn value(self, map: Handle<'a>, key: Handle<'a>) -> Option<Handle<'a>> {
        let mut value = ErlNifTerm::default();
        // SAFETY: see the top of this file.
        let found = unsafe { sys::enif_get_map_value(self.env, map.0, key.0, &raw mut value) } != 0;
        found.then(|| Handle::new(value))
    }

    pub fn elements(self, term: Handle<'a>) -> Option<&'a [Handle<'a>]> {
        let (mut arity, mut elements) = (0, std::ptr::null());
        // SAFETY: on success the VM says where the elements are and how many; a handle is a term and nothing else.
        unsafe {
            if sys::enif_get_tuple(self.env, term.0, &raw mut arity, &raw mut elements) == 0 || arity == 0 {
                return None;
            }
            Some(std::slice::from_raw_parts(elements.cast(), usize::try_from(arity).ok()?))
        }
    }

    /// A binary with a copy of `bytes`.
    #[inline]
    pub fn make_binary(self, bytes: &[u8]) -> Handle<'a> {
        let mut term = ErlNifTerm::default();
        // SAFETY: the VM allocates as many bytes as requested, and no other code has them yet.
        let target = unsafe {
            let data = sys::enif_make_new_binary(self.env, bytes.len(), &raw mut term);
            std::slice::from_raw_parts_mut(data, bytes.len())
        };
        copy_small(bytes, target);
        Handle::new(term)
    }

    /// A binary created outside of the call, without a copy.
    pub fn release(self, binary: OwnedBinary) -> Handle<'a> {
        // SAFETY: see the top of this file; the environment it makes is gone before the call returns.
        let env = unsafe { Env::new(&self.lifetime, self.env) };
        Handle::new(binary.release(env).to_term(env).as_c_arg())
    }

    /// The part of a binary from byte `at` on, without a copy. The part must lie inside the binary.
    #[inline]
    pub fn make_part(self, binary: Handle<'a>, at: usize, len: usize) -> Handle<'a> {
        debug_assert!(self.bytes(binary).is_some_and(|bytes| at + len <= bytes.len()), "the part is inside");
        // SAFETY: see the top of this file.
        Handle::new(unsafe { sys::enif_make_sub_binary(self.env, binary.0, at, len) })
    }

    #[inline]
    pub fn make_integer(self, integer: i64) -> Handle<'a> {
        // SAFETY: see the top of this file.
        Handle::new(unsafe { sys::enif_make_int64(self.env, integer) })
    }

    /// A float; it must be finite.
    #[inline]
    pub fn make_float(self, float: f64) -> Handle<'a> {
        // SAFETY: see the top of this file.
        Handle::new(unsafe { sys::enif_make_double(self.env, float) })
    }

    /// The empty list, which is one and the same term everywhere.
    pub fn empty_list(self) -> Handle<'a> {
        // SAFETY: with a length of 0 no element is read.
        Handle::new(unsafe { sys::enif_make_list_from_array(self.env, std::ptr::null(), 0) })
    }

    /// A list of these elements; `None` when they are more than the VM can count.
    #[inline]
    pub fn make_list(self, elements: &[Handle<'a>]) -> Option<Handle<'a>> {
        let count = c_uint::try_from(elements.len()).ok()?;
        // SAFETY: a handle is a term and nothing else.
        Some(Handle::new(unsafe { sys::enif_make_list_from_array(self.env, elements.as_ptr().cast(), count) }))
    }

    /// A tuple of these elements; `None` when they are more than the VM can count.
    pub fn make_tuple(self, elements: &[Handle<'a>]) -> Option<Handle<'a>> {
        let count = c_uint::try_from(elements.len()).ok()?;
        // SAFETY: a handle is a term and nothing else.
        Some(Handle::new(unsafe { sys::enif_make_tuple_from_array(self.env, elements.as_ptr().cast(), count) }))
    }

    /// A map; `None` when a key comes twice.
    #[inline]
    pub fn make_map(self, keys: &[Handle<'a>], values: &[Handle<'a>]) -> Option<Handle<'a>> {
        let count = keys.len().min(values.len());
        let mut map = ErlNifTerm::default();
        // SAFETY: a handle is a term and nothing else; both arrays have `count` of them.
        let made = unsafe {
            let (keys, values) = (keys.as_ptr().cast(), values.as_ptr().cast());
            sys::enif_make_map_from_arrays(self.env, keys, values, count, &raw mut map)
        };
        let map = Handle::new(map);
        // OTP 25 accepts duplicate keys in a large map and keeps the last of them.
        (made != 0 && (count <= SMALL_MAP || self.size(map) == count)).then_some(map)
    }

    /// Decodes bytes of the external term format.
    pub fn make_external(self, bytes: &[u8]) -> Option<Handle<'a>> {
        let mut term = ErlNifTerm::default();
        // SAFETY: the VM checks the bytes.
        let read = unsafe { sys::enif_binary_to_term(self.env, bytes.as_ptr(), bytes.len(), &raw mut term, 0) };
        (read != 0).then(|| Handle::new(term))
    }

    /// Counts the call as `percent` of a time slice, between 1 and 100.
    pub fn consume(self, percent: usize) {
        // A hundred at most: it fits.
        let percent = i32::try_from(percent.clamp(1, 100)).unwrap_or(100);
        // SAFETY: see the top of this file.
        unsafe { sys::enif_consume_timeslice(self.env, percent) };
    }
}

/// The pairs of a map that are left.
pub struct Pairs<'a> {
    heap: Heap<'a>,
    iterator: ErlNifMapIterator,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Handle<'a>, Handle<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (mut key, mut value) = (ErlNifTerm::default(), ErlNifTerm::default());
        let iterator = &raw mut self.iterator;
        // SAFETY: the iterator was made in this environment and lives until it is dropped.
        unsafe {
            if sys::enif_map_iterator_get_pair(self.heap.env, iterator, &raw mut key, &raw mut value) == 0 {
                return None;
            }
            sys::enif_map_iterator_next(self.heap.env, iterator);
        }
        Some((Handle::new(key), Handle::new(value)))
    }
}

impl Drop for Pairs<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `pairs`, given back once.
        unsafe { sys::enif_map_iterator_destroy(self.heap.env, &raw mut self.iterator) };
    }
}
