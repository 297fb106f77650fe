//! The small messages of a drain: `drain_start` and `started`, `keepalive`, `progress`, `report`, `drain_close`.
//!
//! Guarantees
//! - The deadline is sent as remaining time, so that no common clock is needed. The transmission time only
//!   shortens it.
//! - `keepalive` and `drain_close` have no field except the drain's id.
//! - Progress and report have the keys of the embedded engine's.

use handoff_core::{Progress, Report};

use crate::body::{DrainId, body};

/// How often each side of a drain sends a message, in milliseconds.
pub const KEEPALIVE_MS: u64 = 500;
/// How long the other side may be silent, in milliseconds: four times that interval.
pub const SILENCE_MS: u64 = 2_000;

/// `{durable_handoff, 1, drain_start, Id, LeftMs}`: the engine begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainStart {
    pub id: DrainId,
    /// Milliseconds until the deadline when this was sent.
    pub left_ms: u64,
}

/// `{durable_handoff, 1, started, Id}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub id: DrainId,
}

/// `{durable_handoff, 1, keepalive, Id}`: the drainer still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    pub id: DrainId,
}

/// `{durable_handoff, 1, progress, Id, #{total, pending, ...}}`. It also shows that the Rust node still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressUpdate {
    pub id: DrainId,
    pub progress: Progress,
}

/// `{durable_handoff, 1, report, Id, #{total, moved, left, ...}}`: the summary, after `finish`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportMessage {
    pub id: DrainId,
    pub report: Report,
}

/// `{durable_handoff, 1, drain_close, Id}`: the drainer needs nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainClose {
    pub id: DrainId,
}

body!(DrainStart = "drain_start": id, left_ms);
body!(Started = "started": id);
body!(Keepalive = "keepalive": id);
body!(ProgressUpdate = "progress": id, progress);
body!(ReportMessage = "report": id, report);
body!(DrainClose = "drain_close": id);
