//! `report`: the summary of a drain, after its `finish`.
//!
//! Guarantee: the keys are those of the embedded engine's report.

use handoff_core::Report;

use crate::body::{DrainId, body};

/// `{durable_handoff, 1, report, Id, #{total, moved, left, ...}}`
#[derive(Debug, Clone, PartialEq)]
pub struct ReportMessage {
    pub id: DrainId,
    pub report: Report,
}

body!(ReportMessage = "report": id, report);
