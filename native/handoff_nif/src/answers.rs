//! The results of the engine's functions. `DurableHandoff.Native` documents their shapes.

use handoff_core::event::{EngineError, Poll};
use rustler::types::atom;
use rustler::{Encoder, Env, Term};

use crate::terms::Value;

mod atoms {
    rustler::atoms! { infinity, busy, invalid, unexpected, finished, unknown }
}

/// `{:error, :busy}`: another process is using the engine right now.
pub fn busy(env: Env<'_>) -> Term<'_> {
    (atom::error(), atoms::busy()).encode(env)
}

/// `{:error, reason}` for what the engine refused.
pub fn refused<'a>(env: Env<'a>, error: &EngineError) -> Term<'a> {
    let reason = match error {
        EngineError::Invalid { problems } => (atoms::invalid(), problems).encode(env),
        EngineError::Unexpected { id } => (atoms::unexpected(), id.0).encode(env),
        EngineError::Finished => atoms::finished().encode(env),
        _ => atoms::unknown().encode(env),
    };
    (atom::error(), reason).encode(env)
}

/// `{:ok, actions, wake}`.
pub fn poll<'a>(env: Env<'a>, poll: &Poll) -> Term<'a> {
    let wake = poll.wake.map_or_else(|| atoms::infinity().encode(env), |at| at.0.encode(env));
    (atom::ok(), Value(&poll.actions), wake).encode(env)
}
