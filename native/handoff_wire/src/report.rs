//! `report`: the summary of a drain, after its `finish`.
//!
//! Guarantee: the keys are those of the embedded engine's report.

use etf::{Error, Term, read_value, uint, value};
use handoff_core::Report;

use crate::body::{Body, DrainId, exactly, read_id};

/// `{durable_handoff, 1, report, Id, #{total, moved, left, ...}}`
#[derive(Debug, Clone, PartialEq)]
pub struct ReportMessage {
    pub id: DrainId,
    pub report: Report,
}

impl Body for ReportMessage {
    const KIND: &'static str = "report";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0), value(&self.report)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, report] = exactly(fields)?;
        Ok(ReportMessage { id: read_id(id)?, report: read_value(report, "report")? })
    }
}
