//! Object stores by URL, with compare-and-swap on all of them.
//!
//! Guarantees
//! - A write under a condition ([`Condition`]) is applied when the condition holds and never otherwise, on every store: S3 and
//!   Azure by etag, Google Cloud Storage by generation, a directory by file lock and content hash (several processes of one
//!   machine), memory by a counter.
//! - A write whose answer was lost is not mistaken for a lost race: see [`Readback`].
//! - Every request ends within its deadline ([`Limits`]), retries and waiting for its turn included. Dropping the future
//!   gives the request up.
//! - Bounded: requests in flight and requests that wait for their turn; one more is [`Error::Overloaded`] at once.
//! - Credentials are in no `Debug`, no `Display` and no error: errors are made of status, the provider's error code and the
//!   transport's own words without the URL, never of what was sent.
//!
//! | to change | look at |
//! |---|---|
//! | which URLs and options there are | `open` |
//! | what a request is made of, the lost-answer rule | `store` |
//! | what an answer means | `answers` |
//! | when a request is sent again | `retry` |
//! | what a store has to show at the start | `store::proof`, `flaw` |
//! | deletions where the store has no atomic ones | `tombstone` |
//! | how many at a time | `gate` |
//! | which reads need no request | `cache` |
//! | what the network stores do | `remote`, `remote::wire` for headers and status codes, `remote::credentials` |
//! | the files and locks of `file://` | `directory` |
#![forbid(unsafe_code)]

pub mod answers;
mod backend;
mod cache;
mod directory;
mod error;
mod flaw;
mod gate;
mod key;
mod memory;
mod object;
mod open;
mod remote;
mod retry;
mod runtime;
mod settings;
mod store;
mod tombstone;

pub use error::{Detail, Error};
pub use flaw::Flaw;
pub use object::{Condition, Limits, Object, ObjectRef, Page, Readback, Write};
pub use runtime::shared_runtime;
pub use settings::Settings;
pub use store::{Stats, Store};
