//! `keepalive` and `drain_close`: a drainer shows that it still runs, or that it needs nothing more.
//!
//! Guarantee: both have no field except the drain's id.

use crate::body::{DrainId, body};

/// How often each side of a drain sends a message, in milliseconds.
pub const KEEPALIVE_MS: u64 = 500;
/// How long the other side may be silent, in milliseconds: four times that interval.
pub const SILENCE_MS: u64 = 2_000;

/// `{durable_handoff, 1, keepalive, Id}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    pub id: DrainId,
}

body!(Keepalive = "keepalive": id);

/// `{durable_handoff, 1, drain_close, Id}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainClose {
    pub id: DrainId,
}

body!(DrainClose = "drain_close": id);
