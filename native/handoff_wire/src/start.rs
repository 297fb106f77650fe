//! `drain_start` and `started`: the engine begins.
//!
//! Guarantee: the deadline is sent as remaining time, so that no common clock is needed. The transmission
//! time only shortens it.

use crate::body::{DrainId, body};

/// `{durable_handoff, 1, drain_start, Id, LeftMs}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainStart {
    pub id: DrainId,
    /// Milliseconds until the deadline when this was sent.
    pub left_ms: u64,
}

body!(DrainStart = "drain_start": id, left_ms);

/// `{durable_handoff, 1, started, Id}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub id: DrainId,
}

body!(Started = "started": id);
