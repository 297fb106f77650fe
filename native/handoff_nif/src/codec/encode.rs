//! Encodes a term as JSON.
//!
//! Guarantees
//! - The output is that of Elixir's `JSON`. A term that the encoder does not know becomes a *hole*: the encoder
//!   records the term and its position. Elixir later encodes the holes in order, or raises the exception of
//!   `JSON`. Holes are structs, tuples and other terms without a JSON form, integers above 64 bits, keys that are
//!   neither binary, atom nor integer, and terms nested deeper than 128.
//! - The work is bounded by the output and the number of holes, not by the size of the term: parts of a term
//!   can be shared, so a small term can represent more values than could be visited. Output is never
//!   rewritten. So encoding ends at the first string that is not UTF-8: it took time and gave no output.

use rustler::types::atom;
use state_codec::output::copy_small;
use state_codec::{MAX_DEPTH, Output, Storage, WriteError, number, text};

use super::calendar;
use super::heap::{Guess, Handle, Heap};
use super::names::{Name, Names};

/// With fewer elements the size of the rest is not predicted.
const ALIKE: usize = 8;

/// How many other parts of a state the prediction considers.
const BESIDE: usize = 64;

/// Bytes assumed for an element of unknown size: a small number and a comma.
const SHORT: usize = 4;

/// A term that Elixir must encode.
pub struct Hole<'a> {
    /// Its position in the output, in bytes.
    pub at: usize,
    /// The term.
    pub term: Handle<'a>,
    /// Whether it is a key, which must become a string first.
    pub key: bool,
}

/// Terms recognised by comparison, without a call to the VM.
struct Words<'a> {
    null: Handle<'a>,
    yes: Handle<'a>,
    no: Handle<'a>,
    empty_list: Handle<'a>,
    structure: Handle<'a>,
}

/// The bounds that end encoding early.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// The most holes.
    pub holes: usize,
    /// Once a list or a map has written this many bytes and the rest is predicted not to fit, encoding stops.
    pub forecast: usize,
}

/// Why encoding stopped early.
#[derive(Clone, Copy)]
pub enum Stop {
    /// The output or the holes are too many for this call.
    Full,
    /// An improper list, for whose end no hole can stand, or a string that is not UTF-8. Elixir refuses the whole term.
    Refused,
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::InvalidUtf8 => Stop::Refused,
            _no_room => Stop::Full,
        }
    }
}

/// Encodes one term.
pub struct Encoder<'a, 'n, S> {
    heap: Heap<'a>,
    words: Words<'a>,
    whole: Handle<'a>,
    names: &'n mut Names,
    output: Output<S>,
    holes: Vec<Hole<'a>>,
    bounds: Bounds,
}

impl<'a, 'n, S: Storage> Encoder<'a, 'n, S> {
    /// An encoder of `whole` that writes to `output` and stops at its limit or at these bounds.
    pub fn new(heap: Heap<'a>, whole: Handle<'a>, names: &'n mut Names, output: Output<S>, bounds: Bounds) -> Self {
        let words = Words {
            null: atom::nil().into(),
            yes: atom::true_().into(),
            no: atom::false_().into(),
            empty_list: heap.empty_list(),
            structure: atom::__struct__().into(),
        };
        Encoder { heap, words, whole, names, output, holes: Vec::new(), bounds }
    }

    /// Encodes the whole term.
    pub fn run(&mut self) -> Result<(), Stop> {
        self.value(self.whole, 0)
    }

    /// The output, and the holes in it.
    pub fn finish(self) -> (Output<S>, Vec<Hole<'a>>) {
        (self.output, self.holes)
    }

    /// Writes one value that has `depth` containers around it.
    ///
    /// Every type check is a call to the VM, so the likely types come first; a term that is none of them goes through all
    /// checks.
    fn value(&mut self, term: Handle<'a>, depth: usize) -> Result<(), Stop> {
        match term.guess() {
            Guess::Boxed => {
                if let Some(bytes) = self.heap.bytes(term) {
                    return Ok(text::put_string(&mut self.output, bytes)?);
                } else if let Some(float) = self.heap.float(term) {
                    return Ok(number::put_float(&mut self.output, float)?);
                } else if let Some(pairs) = self.heap.pairs(term) {
                    return self.map(term, pairs, depth);
                }
            }
            Guess::Word => {
                if term == self.words.null {
                    return self.literal(b"null");
                } else if term == self.words.yes {
                    return self.literal(b"true");
                } else if term == self.words.no {
                    return self.literal(b"false");
                } else if let Some(integer) = self.heap.integer(term) {
                    return Ok(number::put_integer(&mut self.output, integer)?);
                }
            }
            Guess::Cell => {
                if let Some((head, tail)) = self.heap.cell(term) {
                    return self.list(term, head, tail, depth);
                }
            }
        }
        self.any(term, depth)
    }

    /// A value whose type differs from the prediction, or a rare one.
    #[cold]
    fn any(&mut self, term: Handle<'a>, depth: usize) -> Result<(), Stop> {
        if term == self.words.empty_list {
            self.literal(b"[]")
        } else if let Some(integer) = self.heap.integer(term) {
            Ok(number::put_integer(&mut self.output, integer)?)
        } else if self.heap.is_atom(term) {
            self.atom(term)
        } else if let Some(bytes) = self.heap.bytes(term) {
            Ok(text::put_string(&mut self.output, bytes)?)
        } else if let Some(float) = self.heap.float(term) {
            Ok(number::put_float(&mut self.output, float)?)
        } else if let Some((head, tail)) = self.heap.cell(term) {
            self.list(term, head, tail, depth)
        } else if let Some(pairs) = self.heap.pairs(term) {
            self.map(term, pairs, depth)
        } else {
            self.hole(term, false)
        }
    }

    fn list(&mut self, list: Handle<'a>, head: Handle<'a>, tail: Handle<'a>, depth: usize) -> Result<(), Stop> {
        if depth == MAX_DEPTH {
            return self.hole(list, false);
        }
        let start = self.output.len();
        let mut forecast = start.saturating_add(self.bounds.forecast);
        self.byte(b'[')?;
        self.value(head, depth + 1)?;
        let (mut rest, mut done) = (tail, 1);
        while let Some((head, tail)) = self.heap.cell(rest) {
            self.byte(b',')?;
            self.value(head, depth + 1)?;
            (rest, done) = (tail, done + 1);
            if self.output.len() > forecast && done >= ALIKE {
                forecast = usize::MAX;
                if !self.list_fits(list, rest, start, done, depth) {
                    return Err(Stop::Full);
                }
            }
        }
        if rest == self.words.empty_list { self.byte(b']') } else { Err(Stop::Refused) }
    }

    fn map(
        &mut self,
        map: Handle<'a>,
        pairs: impl Iterator<Item = (Handle<'a>, Handle<'a>)>,
        depth: usize,
    ) -> Result<(), Stop> {
        if depth == MAX_DEPTH {
            return self.hole(map, false);
        }
        // `__struct__` is checked first: it may be the last key, and then a large part would be written for
        // nothing.
        if let Some(module) = self.heap.value(map, self.words.structure) {
            return self.structure(map, module);
        }
        let start = self.output.len();
        let mut forecast = start.saturating_add(self.bounds.forecast);
        let mut done = 0;
        for (key, value) in pairs {
            self.key(if done == 0 { b'{' } else { b',' }, key)?;
            self.value(value, depth + 1)?;
            done += 1;
            if self.output.len() > forecast && done >= ALIKE {
                forecast = usize::MAX;
                if !self.map_fits(map, done, start) {
                    return Err(Stop::Full);
                }
            }
        }
        if done == 0 { self.literal(b"{}") } else { self.byte(b'}') }
    }

    /// Whether the rest of a map fits, given that `done` pairs were written since `start`.
    #[cold]
    fn map_fits(&self, map: Handle<'a>, done: usize, start: usize) -> bool {
        self.heap.size(map) - done <= self.left() / self.average(start, done)
    }

    /// The average size of the `done` elements that were written since `start`.
    fn average(&self, start: usize, done: usize) -> usize {
        (self.output.len() - start) / done + 1
    }

    /// How many bytes fit below the limit.
    fn left(&self) -> usize {
        self.output.limit().saturating_sub(self.output.len())
    }

    /// Whether the `rest` of a list fits, given that `done` elements were written since `start`. In a map of
    /// lists with short elements, the lists that follow must fit as well.
    #[cold]
    fn list_fits(&self, list: Handle<'a>, rest: Handle<'a>, start: usize, done: usize, depth: usize) -> bool {
        let each = self.average(start, done);
        let most = self.left() / each + 1;
        let count = self.cells(rest, most);
        if count == most {
            return false;
        }
        let mut left = self.left() - count * each;
        let Some(pairs) = self.heap.pairs(self.whole).filter(|_| depth == 1) else {
            return true;
        };
        for (_, value) in pairs.take(BESIDE).skip_while(|(_, value)| *value != list).skip(1) {
            let most = left / SHORT + 1;
            let count = self.cells(value, most);
            if count == most {
                return false;
            }
            left -= count * SHORT;
        }
        true
    }

    /// How many cells a list has, counted no further than `most`.
    fn cells(&self, mut list: Handle<'a>, most: usize) -> usize {
        let mut count = 0;
        while count < most
            && let Some((_, tail)) = self.heap.cell(list)
        {
            (list, count) = (tail, count + 1);
        }
        count
    }

    /// Writes `lead`, a key and a colon.
    #[inline]
    fn key(&mut self, lead: u8, key: Handle<'a>) -> Result<(), Stop> {
        if key.guess() == Guess::Boxed
            && let Some(bytes) = self.heap.bytes(key)
        {
            return Ok(text::put_key(&mut self.output, lead, bytes)?);
        }
        match self.names.remembered(key) {
            Some(name) => Ok(put_key(&mut self.output, lead, name)?),
            None => self.any_key(lead, key),
        }
    }

    /// A key whose type differs from the prediction, a new one, or a rare one.
    #[cold]
    fn any_key(&mut self, lead: u8, key: Handle<'a>) -> Result<(), Stop> {
        if let Some(bytes) = self.heap.bytes(key) {
            Ok(text::put_key(&mut self.output, lead, bytes)?)
        } else if self.heap.is_atom(key) {
            self.atom_key(lead, key)
        } else if let Some(integer) = self.heap.integer(key) {
            self.literal(&[lead, b'"'])?;
            number::put_integer(&mut self.output, integer)?;
            self.literal(b"\":")
        } else {
            self.key_hole(lead, key)
        }
    }

    #[cold]
    fn atom_key(&mut self, lead: u8, atom: Handle<'a>) -> Result<(), Stop> {
        match self.names.ask(self.heap, atom) {
            Some(Name::Ready(name)) => Ok(put_key(&mut self.output, lead, name)?),
            Some(Name::Raw(text)) => Ok(text::put_key(&mut self.output, lead, text.as_bytes())?),
            None => self.key_hole(lead, atom),
        }
    }

    #[cold]
    fn key_hole(&mut self, lead: u8, key: Handle<'a>) -> Result<(), Stop> {
        self.byte(lead)?;
        self.hole(key, true)?;
        self.byte(b':')
    }

    /// An atom as a string. The VM of OTP 25 gives atoms in Latin-1 only.
    fn atom(&mut self, atom: Handle<'a>) -> Result<(), Stop> {
        if let Some(name) = self.names.remembered(atom) {
            return put_name(&mut self.output, name);
        }
        match self.names.ask(self.heap, atom) {
            Some(Name::Ready(name)) => put_name(&mut self.output, name),
            Some(Name::Raw(text)) => Ok(text::put_string(&mut self.output, text.as_bytes())?),
            None => self.hole(atom, false),
        }
    }

    #[cold]
    fn structure(&mut self, map: Handle<'a>, module: Handle<'a>) -> Result<(), Stop> {
        match calendar::date_time(self.heap, map, module) {
            Some(text) => self.literal(&text),
            None => self.hole(map, false),
        }
    }

    #[cold]
    fn hole(&mut self, term: Handle<'a>, key: bool) -> Result<(), Stop> {
        if self.holes.len() == self.bounds.holes {
            return Err(Stop::Full);
        }
        self.holes.push(Hole { at: self.output.len(), term, key });
        Ok(())
    }

    #[inline]
    fn literal(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.output.reserve(bytes.len())?;
        self.output.put(bytes);
        Ok(())
    }

    #[inline]
    fn byte(&mut self, byte: u8) -> Result<(), Stop> {
        self.output.reserve(1)?;
        self.output.put_byte(byte);
        Ok(())
    }
}

/// Writes `lead` and a name that is ready to be a key.
#[inline]
fn put_key<S: Storage>(output: &mut Output<S>, lead: u8, name: &[u8]) -> Result<(), WriteError> {
    let room = output.room(1 + name.len())?;
    room[0] = lead;
    copy_small(name, &mut room[1..]);
    output.advance(1 + name.len());
    Ok(())
}

/// Writes a name that is ready to be a key as a value: without the colon.
#[inline]
fn put_name<S: Storage>(output: &mut Output<S>, name: &[u8]) -> Result<(), Stop> {
    copy_small(name, output.room(name.len())?);
    output.advance(name.len() - 1);
    Ok(())
}
