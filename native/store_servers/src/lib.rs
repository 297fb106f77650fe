//! Object storage servers for tests, each on a loopback port of its own.
//!
//! | server | what it is |
//! |---|---|
//! | [`Backend::s3`] | S3 in memory: correct, or with [`Flaw`]s |
//! | [`Backend::google`] | Google Cloud Storage's XML API in memory |
//! | [`Backend::proxy`] | any HTTP server, passed through |
//!
//! Each has a [`Script`] in front of it: [`Rule`]s select requests by kind, key and number and cause faults
//! before or after the request is applied. Each also serves requests for credentials (`credentials`), so that
//! rules can break these, too. Every request is counted and remembered.
//!
//! The program `store-servers` runs one of them for tests in another language: see `control`.
//!
//! There is one bucket, [`BUCKET`]. Signatures are not checked. For tests and measurements only; it listens on 127.0.0.1.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]

mod backend;
mod bucket;
mod control;
mod credentials;
mod flaw;
mod google;
mod http;
mod kind;
mod s3;
mod script;
mod server;
mod upstream;

pub use backend::Backend;
pub use bucket::BUCKET;
pub use control::{Command, control};
pub use flaw::Flaw;
pub use http::{Answer, Request};
pub use kind::Kind;
pub use script::{Counts, Rule, Script, Seen, Then};
pub use server::Server;
pub use upstream::InvalidUpstream;
