//! `report`: the summary of a drain, after its `finish`.
//!
//! Guarantee: the keys are those of the embedded engine's report.

use etf::{
    Error, Fields, Term, atom, atom_name, list, map, optional, read_each, read_text, read_tuple, read_u32, read_u64,
    text, tuple, uint,
};
use handoff_core::quantiles::Summary;
use handoff_core::time::Micros;
use handoff_core::view::MAX_NODES;
use handoff_core::{Ended, Reason, Report};

use crate::body::{Body, DrainId, exactly, read_id};

const ENDED: [Ended; 4] = [Ended::Done, Ended::Deadline, Ended::Failures, Ended::Cancelled];

/// `{durable_handoff, 1, report, Id, #{total, moved, left, ...}}`
#[derive(Debug, Clone, PartialEq)]
pub struct ReportMessage {
    /// The drain.
    pub id: DrainId,
    /// Its summary.
    pub report: Report,
}

impl Body for ReportMessage {
    const KIND: &'static str = "report";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0), write(&self.report)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, report] = exactly(fields)?;
        Ok(ReportMessage { id: read_id(id)?, report: read(report, "report")? })
    }
}

pub(crate) fn write(report: &Report) -> Term {
    let Summary { count, p50, p90, p99, max } = report.gap;
    let gap = [("count", count), ("p50", p50), ("p90", p90), ("p99", p99), ("max", max)];
    let concurrency = [("last", report.last_limit), ("highest", report.highest_in_flight)];
    map([
        ("total", uint(report.total)),
        ("moved", uint(report.moved)),
        ("left", map(report.left.iter().map(|(reason, count)| (reason.name(), uint(*count))))),
        ("retried", uint(report.retried)),
        ("gap_us", map(gap.map(|(key, value)| (key, uint(value))))),
        ("duration_us", uint(report.duration.0)),
        ("targets", list(report.targets.iter().map(|(name, count)| tuple([text(name), uint(*count)])))),
        ("concurrency", map(concurrency.map(|(key, value)| (key, uint(value.into()))))),
        ("attempts", uint(report.attempts)),
        ("failures", uint(report.failures)),
        ("ended", optional(report.ended.map(|ended| atom(ended.name())))),
    ])
}

pub(crate) fn read(term: &Term, field: &'static str) -> Result<Report, Error> {
    let fields = Fields::of(term, field)?;
    let left = fields.need("left", Fields::of)?;
    let mut reasons = std::collections::BTreeMap::new();
    for reason in Reason::ALL {
        if let Some(count) = left.maybe(reason.name(), read_u64)? {
            reasons.insert(reason, count);
        }
    }
    let gap = fields.need("gap_us", Fields::of)?;
    let concurrency = fields.need("concurrency", Fields::of)?;
    let targets = fields.need("targets", |term, key| {
        read_each(term, key, MAX_NODES, |pair| {
            let [name, count] = read_tuple(pair, "targets")?;
            Ok((read_text(name, "target")?.into(), read_u64(count, "target count")?))
        })
    })?;
    Ok(Report {
        total: fields.need("total", read_u64)?,
        moved: fields.need("moved", read_u64)?,
        left: reasons,
        retried: fields.need("retried", read_u64)?,
        gap: Summary {
            count: gap.need("count", read_u64)?,
            p50: gap.need("p50", read_u64)?,
            p90: gap.need("p90", read_u64)?,
            p99: gap.need("p99", read_u64)?,
            max: gap.need("max", read_u64)?,
        },
        duration: Micros(fields.need("duration_us", read_u64)?),
        targets: targets.into_iter().collect(),
        last_limit: concurrency.need("last", read_u32)?,
        highest_in_flight: concurrency.need("highest", read_u32)?,
        attempts: fields.need("attempts", read_u64)?,
        failures: fields.need("failures", read_u64)?,
        ended: fields.maybe("ended", |term, field| {
            ENDED
                .into_iter()
                .find(|ended| atom_name(term) == Some(ended.name()))
                .ok_or(Error::Field { field, takes: "done, deadline, failures or cancelled" })
        })?,
    })
}
