//! `progress`: the progress of a drain. It also shows that the Rust node still runs.
//!
//! Guarantee: the keys are those of the embedded engine's progress.

use handoff_core::Progress;

use crate::body::{DrainId, body};

/// `{durable_handoff, 1, progress, Id, #{total, pending, ...}}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressUpdate {
    pub id: DrainId,
    /// The current progress.
    pub progress: Progress,
}

body!(ProgressUpdate = "progress": id, progress);
