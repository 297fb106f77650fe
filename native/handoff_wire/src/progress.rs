//! `progress`: how far a drain is; it is also the node's sign of life.
//!
//! Guarantee: the keys are those of the embedded engine's progress.

use etf::{Error, Fields, Term, boolean, map, read_bool, read_u32, read_u64, uint};
use handoff_core::Progress;

use crate::body::{Body, DrainId, exactly, read_id};

/// `{durable_handoff, 1, progress, Id, #{total, pending, ...}}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressUpdate {
    /// The drain.
    pub id: DrainId,
    /// Where it is.
    pub progress: Progress,
}

impl Body for ProgressUpdate {
    const KIND: &'static str = "progress";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0), write(&self.progress)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, progress] = exactly(fields)?;
        Ok(ProgressUpdate { id: read_id(id)?, progress: read(progress, "progress")? })
    }
}

pub(crate) fn write(progress: &Progress) -> Term {
    map([
        ("total", uint(progress.total)),
        ("pending", uint(progress.pending)),
        ("in_flight", uint(progress.in_flight)),
        ("displaced", uint(progress.displaced)),
        ("stopping", uint(progress.stopping)),
        ("moved", uint(progress.moved)),
        ("left", uint(progress.left)),
        ("failures", uint(progress.failures)),
        ("retried", uint(progress.retried)),
        ("limit", uint(progress.limit.into())),
        ("finished", boolean(progress.finished)),
    ])
}

pub(crate) fn read(term: &Term, field: &'static str) -> Result<Progress, Error> {
    let fields = Fields::of(term, field)?;
    Ok(Progress {
        total: fields.need("total", read_u64)?,
        pending: fields.need("pending", read_u64)?,
        in_flight: fields.need("in_flight", read_u64)?,
        displaced: fields.need("displaced", read_u64)?,
        stopping: fields.need("stopping", read_u64)?,
        moved: fields.need("moved", read_u64)?,
        left: fields.need("left", read_u64)?,
        failures: fields.need("failures", read_u64)?,
        retried: fields.need("retried", read_u64)?,
        limit: fields.need("limit", read_u32)?,
        finished: fields.need("finished", read_bool)?,
    })
}
