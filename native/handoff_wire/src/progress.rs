//! `progress`: the progress of a drain. It also shows that the Rust node still runs.
//!
//! Guarantee: the keys are those of the embedded engine's progress.

use etf::{Error, Term, read_value, uint, value};
use handoff_core::Progress;

use crate::body::{Body, DrainId, exactly, read_id};

/// `{durable_handoff, 1, progress, Id, #{total, pending, ...}}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressUpdate {
    pub id: DrainId,
    /// The current progress.
    pub progress: Progress,
}

impl Body for ProgressUpdate {
    const KIND: &'static str = "progress";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0), value(&self.progress)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, progress] = exactly(fields)?;
        Ok(ProgressUpdate { id: read_id(id)?, progress: read_value(progress, "progress")? })
    }
}
