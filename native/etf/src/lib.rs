//! Erlang's external term format, for bytes that come from outside.
//!
//! Guarantee: bytes from outside are decoded only as [`Checked`], which only the check can create. The
//! decoder behind it (`eetf`) trusts lengths, recurses, inflates, and panics on two tags; the check rules all
//! of that out before anything is allocated.
//!
//! ```
//! use etf::{Checked, atom, elements, encode, read_u64, tuple, uint};
//!
//! let bytes = encode(&tuple([atom("port"), uint(4369)]))?;
//! let term = Checked::whole(&bytes)?.decode()?;
//! let port = elements(&term).and_then(|elements| elements.last()).map(|port| read_u64(port, "port"));
//! assert_eq!(port.transpose()?, Some(4369));
//! # Ok::<(), etf::Error>(())
//! ```
//!
//! | file | |
//! |---|---|
//! | [`check`] | what may be decoded, with its limits |
//! | `checked` | the type of bytes that passed |
//! | `write` | terms from values |
//! | `read` | values from terms, each error names the field |
//! | `value` | both for types that serde knows |
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]
// Input from outside must not be able to end the process.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

pub mod check;
mod checked;
mod error;
mod read;
mod value;
mod write;

pub use check::CheckError;
pub use checked::Checked;
pub use eetf::{Atom, FixInteger, Pid, Reference, Term};
pub use error::Error;
pub use read::{
    Fields, MAX_TEXT, atom_name, elements, pid, read_bool, read_bytes, read_each, read_f64, read_i64, read_list,
    read_pid, read_text, read_tuple, read_u32, read_u64, reference,
};
pub use value::{read_value, value};
pub use write::{atom, binary, boolean, choice, encode, float, int, list, map, optional, text, tuple, uint};
