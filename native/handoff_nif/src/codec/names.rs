//! Cache of atom texts. An atom has the same text for the life of the VM, so each thread caches the last few
//! hundred. With the cache a state with atoms as keys is cheaper to encode than one with strings.
//!
//! Guarantee: fixed memory for each thread. The text of an atom that is not cached is read from the VM.

use std::cell::RefCell;

use super::heap::{Handle, Heap, Word};

/// Each place holds two atoms. With one, two atoms used alternately would evict each other.
const PAIRS: usize = 128;

/// Room for a text, its quotes and a colon.
const ROOM: usize = 38;

/// One atom, ready to be written as a key.
#[derive(Clone, Copy)]
struct Slot {
    atom: Option<Word>,
    len: u8,
    text: [u8; ROOM],
}

thread_local! {
    static NAMES: RefCell<Names> = const { RefCell::new(Names([[Slot::EMPTY; 2]; PAIRS])) };
}

/// The cache of one thread.
pub struct Names([[Slot; 2]; PAIRS]);

/// The text of an atom.
pub enum Name<'n> {
    /// `"text":`, nothing in it to be escaped.
    Ready(&'n [u8]),
    /// Any text, not escaped.
    Raw(String),
}

/// Runs `work` with the cache of this thread.
pub fn with<R>(work: impl FnOnce(&mut Names) -> R) -> R {
    NAMES.with_borrow_mut(work)
}

impl Names {
    /// The cached text of `term`, if it is an atom.
    #[inline]
    pub fn remembered(&self, term: Handle<'_>) -> Option<&[u8]> {
        let word = term.word();
        let [newer, older] = &self.0[pair(word)];
        // An empty slot has no atom, so no atom equals it.
        if newer.atom == Some(word) {
            Some(newer.text())
        } else if older.atom == Some(word) {
            Some(older.text())
        } else {
            None
        }
    }

    /// The text of an atom; `None` when the VM does not give it.
    pub fn ask<'a>(&mut self, heap: Heap<'a>, atom: Handle<'a>) -> Option<Name<'_>> {
        let mut latin1 = [0; 256];
        let len = heap.latin1(atom, &mut latin1)?;
        let text: String = latin1[..len].iter().map(|&character| char::from(character)).collect();
        let escaped = text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\');
        if escaped || text.len() + 3 > ROOM {
            return Some(Name::Raw(text));
        }
        let [newer, older] = &mut self.0[pair(atom.word())];
        *older = *newer;
        *newer = Slot::new(atom.word(), &text);
        Some(Name::Ready(newer.text()))
    }
}

impl Slot {
    const EMPTY: Slot = Slot { atom: None, len: 0, text: [0; ROOM] };

    fn new(atom: Word, name: &str) -> Self {
        let len = name.len() + 3;
        let mut text = [0; ROOM];
        text[0] = b'"';
        text[1..len - 2].copy_from_slice(name.as_bytes());
        text[len - 2..len].copy_from_slice(b"\":");
        Slot { atom: Some(atom), len: u8::try_from(len).unwrap_or(0), text }
    }

    #[inline]
    fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

/// Atoms differ in the bits above the VM's tag.
#[inline]
fn pair(word: Word) -> usize {
    let index = word.bits() >> 6;
    (index ^ index >> 7) % PAIRS
}
