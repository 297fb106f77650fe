//! JSON read into a term.
//!
//! Guarantee: the term is what Elixir's `JSON` would have made. Of keys that come twice the first counts. Strings of more than
//! 64 bytes are parts of the input, which lives as long as they do, or of a pool when they have escapes; with `copy` each
//! string is on its own.
//! What is not UTF-8, not JSON, nested deeper than 128, or holds an integer of more than 600 digits is refused: Elixir
//! reads it, or says what is wrong with it.

use std::collections::HashSet;

use rustler::types::atom;
use state_codec::{Event, Parser, Text, bignum};

use super::heap::{Handle, Heap, Pool};
use super::keys::Keys;
use super::memory::{self, Stacks};

/// Shorter strings are smaller as copies than as references.
const SHORT: usize = 64;

/// What is being built.
struct Builder<'a> {
    heap: Heap<'a>,
    stacks: Stacks<'a>,
}

/// The term `input`, which is the binary `binary`, stands for. `None` when Elixir has to see it.
pub fn decode<'a>(heap: Heap<'a>, binary: Handle<'a>, input: &str, copy: bool) -> Option<Handle<'a>> {
    let (stacks, buffer) = memory::borrow_stacks();
    let mut builder = Builder { heap, stacks };
    let mut parser = Parser::with_buffer(input, buffer);
    let term = builder.build(&mut parser, binary, copy);
    memory::give_back_stacks(builder.stacks, parser.into_buffer());
    term
}

impl<'a> Builder<'a> {
    fn build(&mut self, parser: &mut Parser<'_>, binary: Handle<'a>, copy: bool) -> Option<Handle<'a>> {
        let heap = self.heap;
        let [null, yes, no] = [atom::nil(), atom::true_(), atom::false_()].map(Handle::from);
        let (mut keys, mut pool) = (Keys::default(), Pool::default());
        while let Some(event) = parser.next_event().ok()? {
            let value = match event {
                Event::Key(Text::Verbatim { text, .. }) => {
                    let key = keys.get(text, || heap.make_binary(text));
                    self.stacks.keys.push(key);
                    continue;
                }
                Event::Key(Text::Unescaped(text)) => {
                    self.stacks.keys.push(heap.make_binary(text));
                    continue;
                }
                Event::ObjectStart => {
                    keys.object();
                    self.open();
                    continue;
                }
                Event::ArrayStart => {
                    self.open();
                    continue;
                }
                Event::String(Text::Verbatim { at, text }) if text.len() > SHORT && !copy => {
                    heap.make_part(binary, at, text.len())
                }
                Event::String(Text::Unescaped(text)) if text.len() > SHORT && !copy => pool.make_binary(heap, text),
                Event::String(text) => heap.make_binary(text.as_bytes()),
                Event::Integer(integer) => heap.make_integer(integer),
                Event::Float(float) => heap.make_float(float),
                Event::Null => null,
                Event::Bool(true) => yes,
                Event::Bool(false) => no,
                Event::ArrayEnd => self.array()?,
                Event::ObjectEnd => self.object()?,
                Event::BigInteger(digits) => heap.make_external(&bignum::external(digits)?)?,
            };
            self.stacks.values.push(value);
        }
        self.stacks.values.pop()
    }

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
