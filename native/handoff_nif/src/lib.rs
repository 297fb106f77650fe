//! The drain engine and the codec as an Erlang NIF: decode, call `handoff_core` or `state_codec`, encode.
//!
//! Guarantees
//! - No function runs longer than about a millisecond on a normal scheduler: whatever grows with the number of servers or
//!   nodes is a dirty call.
//! - A term of the wrong shape is a `badarg`, a panic is an Erlang error (rustler catches it, in the codec `heap/calls.rs`), values out of bounds are
//!   `{:error, {:invalid, problems}}`. Nothing here can end the VM.
//! - Nobody waits for a lock: an engine in use by another process is `{:error, :busy}`.
//!
//! | file | what |
//! |---|---|
//! | `engine.rs` | the engine as a resource: new, poll, event, view, progress, report, results |
//! | `plan.rs` | the dry run, the existing rules alone, the list of reasons |
//! | `limiter.rs` | the engine's limiter alone, for work that is not a drain |
//! | `terms.rs` | maps and tuples from Elixir to the engine's types |
//! | `codec.rs` | states to JSON and back: its `heap.rs` is the only unsafe code |
//! | `answers.rs` | the engine's types to maps and tuples for Elixir |

mod answers;
mod codec;
mod engine;
mod limiter;
mod plan;
mod terms;

rustler::init!("Elixir.DurableHandoff.Native");
