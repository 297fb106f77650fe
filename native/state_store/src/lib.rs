//! Object stores by URL, with compare-and-swap on all of them.
//!
//! Guarantees
//! - A conditional write ([`Condition`]) is applied if and only if its condition holds, on every store: S3 and Azure by
//!   etag, Google Cloud Storage by generation, a directory by file lock and content hash (several processes of one
//!   machine), memory by a counter.
//! - A write whose response was lost is not taken for a lost race: see [`Readback`].
//! - Every request ends within its deadline ([`Limits`]), including retries and waiting. Dropping the future cancels the
//!   request.
//! - Requests in flight and waiting requests are bounded. One more returns [`Error::Overloaded`] at once.
//! - Credentials appear in no `Debug`, no `Display` and no error: an error has the status, the provider's error code and
//!   the transport's message without the URL, never parts of the request.
//!
//! | to change | look at |
//! |---|---|
//! | which URLs and options there are | `open` |
//! | the steps of a request, the rule for lost responses | `store` |
//! | what a response means | `answers` |
//! | when a request is sent again | `retry` |
//! | the proof at the start | `store::proof`, `flaw` |
//! | deletions where the store has no atomic ones | `tombstone` |
//! | how many requests at a time | `gate` |
//! | which reads are answered from memory | `cache` |
//! | what the network stores do | `remote`, `remote::wire` for headers and status codes, `remote::credentials` |
//! | the files and locks of `file://` | `directory` |
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]

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
