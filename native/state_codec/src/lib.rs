//! State to JSON and back, byte for byte as Elixir's `JSON` module writes it: the parts that need no BEAM.
//!
//! Guarantees
//! - The output is that of Elixir: its escapes, its integers, its floats (`float_to_binary(F, [:short])`).
//! - A text is accepted if and only if Elixir accepts it. Nesting deeper than [`MAX_DEPTH`] has an error of its own,
//!   so that the caller can use a parser without that limit.
//! - Bounded memory: an [`Output`] never grows past the limit it was given, a [`Parser`] keeps one bit a level and the longest
//!   string with escapes. An allocation that fails while writing is a value ([`WriteError::OutOfMemory`]).
//! - The same bytes on every machine: [`scan`] has a portable path and faster ones for x86-64, chosen at run time, tested
//!   against each other.
//!
//! | to change | look at |
//! |---|---|
//! | how sixteen or thirty-two bytes are scanned at a time | [`scan`], the only module with `unsafe` |
//! | how a string is escaped | [`text`] |
//! | how a number is written | [`number`] |
//! | integers above 64 bits | [`bignum`] |
//! | what is accepted as JSON | [`parser`] |
//! | where the bytes go | [`output`] |
#![deny(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]

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

/// The deepest nesting that is read or written here. The caller handles deeper terms with a stack on the heap.
pub const MAX_DEPTH: usize = 128;
