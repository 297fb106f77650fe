//! State to JSON and back, byte for byte as Elixir's `JSON` module writes it: the parts that need no BEAM.
//!
//! Guarantees
//! - What is written is what Elixir writes: its escapes, its integers, its floats (`float_to_binary(F, [:short])`).
//! - What is read is what Elixir reads: a text is refused here exactly when it is refused there, numbers that fit no float
//!   included. Nesting deeper than [`MAX_DEPTH`] is refused with an error of its own, for a reader that has no such bound.
//! - Bounded memory: an [`Output`] never grows past the limit it was given, a [`Parser`] keeps one bit a level and the longest
//!   string with escapes. An allocation that fails while writing is a value ([`WriteError::OutOfMemory`]).
//! - The same bytes on every machine: [`scan`] has a portable path and faster ones for x86-64, chosen at run time, tested
//!   against each other.
//!
//! | to change | look at |
//! |---|---|
//! | how bytes are looked at sixteen or thirty-two at a time | [`scan`], the only place with `unsafe` |
//! | how a string is escaped | [`text`] |
//! | how a number is written | [`number`] |
//! | integers above 64 bits | [`bignum`] |
//! | what is accepted as JSON | [`parser`] |
//! | where the bytes go | [`output`] |
#![deny(unsafe_code)]

pub mod bignum;
mod error;
pub mod number;
pub mod output;
pub mod parser;
pub mod scan;
pub mod text;

pub use error::{Declined, ReadError, WriteError};
pub use output::{Output, Storage};
pub use parser::{Event, Parser, Sink, Text};

/// The deepest nesting that is read or written here; the caller handles deeper terms on a growing stack.
pub const MAX_DEPTH: usize = 128;
