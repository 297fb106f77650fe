//! serde for Erlang terms, in a NIF or in the external term format.
//!
//! | Rust | term |
//! |---|---|
//! | a struct | a map with atoms as keys |
//! | a variant without fields | an atom |
//! | a variant with fields, named or not | a tuple of the variant's name and its fields, in their order |
//! | a struct of one unnamed field | what the field is |
//! | a tuple | a tuple |
//! | a sequence | a list |
//! | a map | a map |
//! | a string | a binary |
//! | `None` | `nil` |
//!
//! Guarantees
//! - Keys that are not known are ignored, and a key whose value is `nil` counts as absent: a later release may add some.
//! - A float is also read from an integer. An atom is not a string, and a tuple is not a list.
//! - An error names the keys that lead to it.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod error;
mod read;
mod write;

pub use error::Error;
pub use read::{Kind, ReadTerm, from_term};
pub use write::{MakeTerm, to_term};
