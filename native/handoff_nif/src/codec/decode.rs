//! Decodes JSON into a term.
//!
//! Guarantee: the result is that of Elixir's `JSON`. Of duplicate keys the first one counts. A string of more
//! than 64 bytes refers to the input, which then stays in memory as long as the string. A string with escapes
//! refers to a pool instead. With `copy` each string has memory of its own. Elixir decodes, or reports the
//! error of, a text that is not UTF-8 or not JSON, is nested deeper than 128, or has an integer of more than
//! 600 digits.

use std::collections::HashSet;

use rustler::types::atom;
use state_codec::{Declined, Event, Parser, Sink, Text, bignum};

use super::heap::{Handle, Heap, Pools};
use super::keys::Keys;
use super::memory::{self, Stacks};

/// Shorter strings are smaller as copies than as references.
const SHORT: usize = 64;

/// The terms under construction.
struct Builder<'a> {
    heap: Heap<'a>,
    input: Handle<'a>,
    copy: bool,
    null: Handle<'a>,
    yes: Handle<'a>,
    no: Handle<'a>,
    stacks: Stacks<'a>,
    keys: Keys<'a>,
    pools: Pools<'a>,
}

/// Decodes `input`, the bytes of `binary`. `None` when Elixir must decode it.
pub fn decode<'a>(heap: Heap<'a>, binary: Handle<'a>, input: &str, copy: bool) -> Option<Handle<'a>> {
    let (stacks, buffer) = memory::borrow_stacks();
    let mut builder = Builder {
        heap,
        input: binary,
        copy,
        null: atom::nil().into(),
        yes: atom::true_().into(),
        no: atom::false_().into(),
        stacks,
        keys: Keys::default(),
        pools: Pools::new(),
    };
    let mut parser = Parser::with_buffer(input, buffer);
    let read = parser.read(&mut builder);
    let term = builder.stacks.values.pop().filter(|_| read.is_ok());
    memory::give_back_stacks(builder.stacks, parser.into_buffer());
    term
}

impl Sink for Builder<'_> {
    /// Inlined into the parser for each kind of event, so that no event is stored and matched again.
    #[inline(always)]
    fn take(&mut self, event: Event<'_>) -> Result<(), Declined> {
        let heap = self.heap;
        let value = match event {
            Event::Key(Text::Verbatim { text, .. }) => {
                let key = self.keys.get(text, || heap.make_binary(text));
                self.stacks.keys.push(key);
                return Ok(());
            }
            Event::Key(Text::Unescaped(text)) => {
                self.stacks.keys.push(heap.make_binary(text));
                return Ok(());
            }
            Event::ObjectStart => {
                self.keys.object();
                self.open();
                return Ok(());
            }
            Event::ArrayStart => {
                self.open();
                return Ok(());
            }
            Event::String(Text::Verbatim { at, text }) if text.len() > SHORT && !self.copy => {
                heap.make_part(self.input, at, text.len())
            }
            Event::String(Text::Unescaped(text)) if text.len() > SHORT && !self.copy => {
                self.pools.make_binary(heap, text)
            }
            Event::String(text) => heap.make_binary(text.as_bytes()),
            Event::Integer(integer) => heap.make_integer(integer),
            Event::Float(float) => heap.make_float(float),
            Event::Null => self.null,
            Event::Bool(true) => self.yes,
            Event::Bool(false) => self.no,
            Event::ArrayEnd => self.array().ok_or(Declined)?,
            Event::ObjectEnd => self.object().ok_or(Declined)?,
            Event::BigInteger(digits) => self.big_integer(digits).ok_or(Declined)?,
        };
        self.stacks.values.push(value);
        Ok(())
    }
}

impl<'a> Builder<'a> {
    #[inline]
    fn open(&mut self) {
        self.stacks.open.push((self.stacks.keys.len(), self.stacks.values.len()));
    }

    fn array(&mut self) -> Option<Handle<'a>> {
        let (_, values) = self.stacks.open.pop()?;
        let array = self.heap.make_list(&self.stacks.values[values..])?;
        self.stacks.values.truncate(values);
        Some(array)
    }

    fn object(&mut self) -> Option<Handle<'a>> {
        let (keys, values) = self.stacks.open.pop()?;
        let map = self.heap.make_map(&self.stacks.keys[keys..], &self.stacks.values[values..]);
        let map = match map {
            Some(map) => Some(map),
            None => self.first_of_each(keys, values),
        };
        self.stacks.keys.truncate(keys);
        self.stacks.values.truncate(values);
        map
    }

    #[cold]
    fn big_integer(&self, digits: &str) -> Option<Handle<'a>> {
        self.heap.make_external(&bignum::external(digits)?)
    }

    /// The map of the first pair of each key.
    #[cold]
    fn first_of_each(&self, keys: usize, values: usize) -> Option<Handle<'a>> {
        let mut seen = HashSet::new();
        let (keys, values): (Vec<_>, Vec<_>) = std::iter::zip(&self.stacks.keys[keys..], &self.stacks.values[values..])
            .filter(|(key, _)| seen.insert(self.heap.bytes(**key)))
            .unzip();
        self.heap.make_map(&keys, &values)
    }
}
