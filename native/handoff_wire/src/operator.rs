//! What the command line asks an agent: who are you, and drain.
//!
//! Guarantee: each question carries a number and the pid that waits; every answer carries the number. The
//! agent decides; a request is a request.

use etf::{
    Error, Fields, Pid, Term, boolean, int, map, optional, read_bool, read_i64, read_pid, read_text, read_u64,
    read_value, text, uint, value,
};
use std::collections::BTreeMap;
use std::sync::Arc;

use handoff_core::{Progress, Reason, Report, shape};
use serde::{Deserialize, Serialize};

use crate::body::{Body, exactly};

/// The number of a question, chosen by who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// `{durable_handoff, 1, describe, Request, Pid}`
#[derive(Debug, Clone, PartialEq)]
pub struct Describe {
    pub request: RequestId,
    /// Where the answer goes.
    pub from: Pid,
}

impl Body for Describe {
    const KIND: &'static str = "describe";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.request.0), self.from.clone().into()]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [request, from] = exactly(fields)?;
        Ok(Describe { request: RequestId(read_u64(request, "request")?), from: read_pid(from, "from")? })
    }
}

/// One supervisor of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorInfo {
    pub name: String,
    /// The release it runs.
    pub generation: Option<String>,
    /// When it started, wall-clock milliseconds of its node.
    pub started_at_ms: Option<i64>,
    /// How many servers it has.
    pub servers: u64,
    /// Whether it is draining.
    pub draining: bool,
}

/// `{durable_handoff, 1, description, Request, #{release, now_ms, supervisors}}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub request: RequestId,
    /// The library's release.
    pub release: String,
    /// The node's wall clock, milliseconds.
    pub now_ms: i64,
    pub supervisors: Vec<SupervisorInfo>,
}

impl Body for Description {
    const KIND: &'static str = "description";

    fn write(&self) -> Vec<Term> {
        let info = map([
            ("release", text(&self.release)),
            ("now_ms", int(self.now_ms)),
            ("supervisors", value(&self.supervisors)),
        ]);
        vec![uint(self.request.0), info]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [request, info] = exactly(fields)?;
        let info = Fields::of(info, "description")?;
        Ok(Description {
            request: RequestId(read_u64(request, "request")?),
            release: info.need("release", read_text)?,
            now_ms: info.need("now_ms", read_i64)?,
            supervisors: info.need("supervisors", read_value)?,
        })
    }
}

/// `{durable_handoff, 1, drain_request, Request, Pid, #{supervisor, timeout_ms, dry_run, plan}}`
#[derive(Debug, Clone, PartialEq)]
pub struct DrainRequest {
    pub request: RequestId,
    /// Receives progress and report. The drain continues when this process ends.
    pub from: Pid,
    pub supervisor: String,
    /// Instead of its configured time.
    pub timeout_ms: Option<u64>,
    /// Only say which server would go where.
    pub dry_run: bool,
    /// The answer to a dry run may be a [`PlanDone`]. False from releases before there was one: they get a [`DrainDone`].
    pub plan: bool,
}

impl Body for DrainRequest {
    const KIND: &'static str = "drain_request";

    fn write(&self) -> Vec<Term> {
        let what = map([
            ("supervisor", text(&self.supervisor)),
            ("timeout_ms", optional(self.timeout_ms.map(uint))),
            ("dry_run", boolean(self.dry_run)),
            ("plan", boolean(self.plan)),
        ]);
        vec![uint(self.request.0), self.from.clone().into(), what]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [request, from, what] = exactly(fields)?;
        let what = Fields::of(what, "drain_request")?;
        Ok(DrainRequest {
            request: RequestId(read_u64(request, "request")?),
            from: read_pid(from, "from")?,
            supervisor: what.need("supervisor", read_text)?,
            timeout_ms: what.maybe("timeout_ms", read_u64)?,
            dry_run: what.need("dry_run", read_bool)?,
            plan: what.maybe("plan", read_bool)?.unwrap_or(false),
        })
    }
}

/// `{durable_handoff, 1, drain_step, Request, Progress}`, about twice a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainStep {
    pub request: RequestId,
    pub progress: Progress,
}

impl Body for DrainStep {
    const KIND: &'static str = "drain_step";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.request.0), value(&self.progress)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [request, progress] = exactly(fields)?;
        Ok(DrainStep { request: RequestId(read_u64(request, "request")?), progress: read_value(progress, "progress")? })
    }
}

/// `{durable_handoff, 1, drain_done, Request, Report}`. To a question without `plan`, also the answer to a dry
/// run: `moved` is what would move, `targets` where to, `left` the rest, `duration_us` the estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct DrainDone {
    pub request: RequestId,
    pub report: Report,
}

impl Body for DrainDone {
    const KIND: &'static str = "drain_done";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.request.0), value(&self.report)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [request, report] = exactly(fields)?;
        Ok(DrainDone { request: RequestId(read_u64(request, "request")?), report: read_value(report, "report")? })
    }
}

/// What a drain would do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanSummary {
    /// All servers.
    pub total: u64,
    /// Those that have a target.
    pub moves: u64,
    /// Those that have none, by reason.
    #[serde(deserialize_with = "shape::known_reasons")]
    pub left: BTreeMap<Reason, u64>,
    /// Servers per node they would go to, by name.
    #[serde(with = "shape::pairs")]
    pub targets: BTreeMap<Arc<str>, u64>,
    /// The time that the drain would have, milliseconds.
    pub timeout_ms: Option<u64>,
    /// About how long it would take, microseconds; absent when the store did not answer or nothing would move.
    pub estimate_us: Option<u64>,
    /// Healthy nodes that are not connected.
    pub out_of_reach: Vec<String>,
}

/// `{durable_handoff, 1, plan, Request, #{total, moves, left, targets, timeout_ms, estimate_us, out_of_reach}}`
#[derive(Debug, Clone, PartialEq)]
pub struct PlanDone {
    /// The question.
    pub request: RequestId,
    /// The answer.
    pub plan: PlanSummary,
}

impl Body for PlanDone {
    const KIND: &'static str = "plan";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.request.0), value(&self.plan)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [request, plan] = exactly(fields)?;
        Ok(PlanDone { request: RequestId(read_u64(request, "request")?), plan: read_value(plan, "plan")? })
    }
}
