//! The drain engine and the codec as an Erlang NIF: decode, call `handoff_core` or `state_codec`, encode.
//!
//! Guarantees
//! - No function runs longer than about a millisecond on a normal scheduler: work that grows with the number of
//!   servers or nodes is a dirty call.
//! - A term of the wrong shape raises `badarg`. Values out of bounds return `{:error, {:invalid, problems}}`. A panic
//!   becomes an Erlang error: rustler catches it, in the codec `heap/calls.rs`. Nothing here can end the VM.
//! - No call waits for a lock: an engine that another process is using returns `{:error, :busy}`.
//!
//! | file | what |
//! |---|---|
//! | `engine.rs` | the engine as a resource: new, poll, event, view, progress, report, results |
//! | `plan.rs` | the plan, the eligibility rules alone, reasons, defaults and ranges |
//! | `limiter.rs` | the engine's limiter alone, for work that is not a drain |
//! | `terms.rs` | the engine's types as arguments and results, through serde |
//! | `codec.rs` | states to JSON and back: its `heap.rs` is the only unsafe code |
//! | `answers.rs` | results of the engine's calls |
#![deny(unsafe_code)]

mod answers;
mod codec;
mod engine;
mod limiter;
mod plan;
mod terms;

rustler::init!("Elixir.DurableHandoff.Native", load = load);

/// The module passes the version that it is of. A drain would otherwise be the first to call what another version lacks.
fn load(_env: rustler::Env<'_>, version: rustler::Term<'_>) -> bool {
    version.decode::<&str>().is_ok_and(|version| version == env!("CARGO_PKG_VERSION"))
}
