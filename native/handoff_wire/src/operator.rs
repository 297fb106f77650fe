//! Requests of the command line to an agent: describe the node, drain, cordon, move a server, rebalance.
//!
//! Guarantee: each request has a number and the pid of the requester, and every answer has that number. The
//! agent decides whether to carry out a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use etf::{Error, Fields, Pid, Term, float, map, read_f64, read_u32, read_u64, read_value, uint, value};
use handoff_core::report::Balance;
use handoff_core::{Progress, Reason, Report, shape};
use serde::{Deserialize, Serialize};

use crate::body::{Body, Value, body, exactly, values};

/// The number of a request, chosen by the requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

values! {
    RequestId: |request| uint(request.0), read_request;
    Vec<SupervisorInfo>: |supervisors| value(supervisors), read_value;
    PlanSummary: |plan| value(plan), read_value;
}

fn read_request(term: &Term, field: &'static str) -> Result<RequestId, Error> {
    read_u64(term, field).map(RequestId)
}

/// `{durable_handoff, 1, describe, Request, Pid}`
#[derive(Debug, Clone, PartialEq)]
pub struct Describe {
    pub request: RequestId,
    /// The process that receives the answer.
    pub from: Pid,
}

body!(Describe = "describe": request, from);

/// One supervisor of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorInfo {
    pub name: String,
    /// The release it runs.
    pub generation: Option<String>,
    /// When it started, wall-clock milliseconds of its node.
    pub started_at_ms: Option<i64>,
    pub servers: u64,
    /// Whether the supervisor accepts no servers, because it is cordoned or marked as draining.
    pub draining: bool,
    /// Whether that can be undone now: the supervisor is cordoned, and does not drain. Absent from releases without
    /// cordons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
}

/// The value in [`Description::knows`] for the fields `tolerance`, `min_servers` and `max_per_second` of a
/// [`RebalanceRequest`]. An agent without that value ignores these fields.
pub const REBALANCE_SETTINGS: &str = "rebalance_settings";

/// The same for its field `after_ms`.
pub const REBALANCE_AFTER_MS: &str = "rebalance_after_ms";

/// `{durable_handoff, 1, description, Request, #{release, now_ms, supervisors, knows}}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub request: RequestId,
    /// The library's release.
    pub release: String,
    /// The node's wall clock, milliseconds.
    pub now_ms: i64,
    pub supervisors: Vec<SupervisorInfo>,
    /// Features that earlier agents ignore, such as [`REBALANCE_SETTINGS`]. Empty from earlier releases.
    pub knows: Vec<String>,
}

body!(Description = "description": request; info { release, now_ms, supervisors; knows });

/// `{durable_handoff, 1, drain_request, Request, Pid, #{supervisor, timeout_ms, dry_run, plan}}`
#[derive(Debug, Clone, PartialEq)]
pub struct DrainRequest {
    pub request: RequestId,
    /// Receives progress and report. The drain continues when this process ends.
    pub from: Pid,
    pub supervisor: String,
    /// Replaces the configured time.
    pub timeout_ms: Option<u64>,
    /// Only return which server would go where.
    pub dry_run: bool,
    /// The answer to a dry run may be a [`PlanDone`]. False from earlier releases, which get a [`DrainDone`].
    pub plan: bool,
}

body!(DrainRequest = "drain_request": request, from; what { supervisor, timeout_ms, dry_run; plan });

/// `{durable_handoff, 1, drain_step, Request, Progress}`, about twice a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainStep {
    pub request: RequestId,
    pub progress: Progress,
}

body!(DrainStep = "drain_step": request, progress);

/// `{durable_handoff, 1, drain_done, Request, Report}`. It also answers a dry run without `plan`: `moved` has
/// the servers that would move, `targets` their targets, `left` the rest, `duration_us` the estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct DrainDone {
    pub request: RequestId,
    pub report: Report,
}

body!(DrainDone = "drain_done": request, report);

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanSummary {
    pub total: u64,
    /// Servers that have a target.
    pub moves: u64,
    /// Servers without a target, by reason.
    #[serde(deserialize_with = "shape::known_reasons")]
    pub left: BTreeMap<Reason, u64>,
    /// Servers by target.
    #[serde(with = "shape::pairs")]
    pub targets: BTreeMap<Arc<str>, u64>,
    pub timeout_ms: Option<u64>,
    /// The estimated duration in microseconds. Absent when the store did not answer or nothing would move.
    pub estimate_us: Option<u64>,
    /// Healthy nodes that are not connected.
    pub out_of_reach: Vec<String>,
    /// Only in the plan of a rebalance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
}

/// `{durable_handoff, 1, plan, Request, #{total, moves, left, targets, timeout_ms, estimate_us, out_of_reach}}`
#[derive(Debug, Clone, PartialEq)]
pub struct PlanDone {
    pub request: RequestId,
    pub plan: PlanSummary,
}

body!(PlanDone = "plan": request, plan);

/// `{durable_handoff, 1, cordon_request, Request, Pid, #{supervisor, cordon}}`
#[derive(Debug, Clone, PartialEq)]
pub struct CordonRequest {
    pub request: RequestId,
    /// Receives the answer.
    pub from: Pid,
    /// Absent for all supervisors of the node.
    pub supervisor: Option<String>,
    /// True: accept no more servers. False: accept them again.
    pub cordon: bool,
}

body!(CordonRequest = "cordon_request": request, from; what { supervisor, cordon });

/// `{durable_handoff, 1, cordon_done, Request, #{supervisors}}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CordonDone {
    pub request: RequestId,
    /// The supervisors that are now in the requested state.
    pub supervisors: Vec<String>,
}

body!(CordonDone = "cordon_done": request; what { supervisors });

/// `{durable_handoff, 1, move_request, Request, Pid, #{supervisor, key, to, timeout_ms}}`
#[derive(Debug, Clone, PartialEq)]
pub struct MoveRequest {
    pub request: RequestId,
    /// Receives the answer. The move continues when this process ends.
    pub from: Pid,
    pub supervisor: String,
    /// The key of the server, which may run on any node of the cluster.
    pub key: String,
    /// The target. Absent for the best one.
    pub to: Option<String>,
    /// Replaces the configured time of one attempt.
    pub timeout_ms: Option<u64>,
}

body!(MoveRequest = "move_request": request, from; what { supervisor, key, to, timeout_ms });

/// `{durable_handoff, 1, move_done, Request, #{from, to, gap_us, attempts}}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveDone {
    pub request: RequestId,
    /// The node where the server ran.
    pub from: String,
    /// The node where it runs now.
    pub to: String,
    /// An upper bound of the time in which the server was unavailable, in microseconds.
    pub gap_us: u64,
    pub attempts: u64,
}

body!(MoveDone = "move_done": request; what { from, to, gap_us, attempts });

/// `{durable_handoff, 1, rebalance_request, Request, Pid, #{supervisor, dry_run, timeout_ms, after_ms, tolerance,
/// min_servers, max_per_second}}`. The answers are those to a [`DrainRequest`] with `plan`; `total` counts
/// the servers to be moved. The last four keys are sent only to an agent that knows them
/// ([`REBALANCE_AFTER_MS`], [`REBALANCE_SETTINGS`]). Without a key the configured value counts.
#[derive(Debug, Clone, PartialEq)]
pub struct RebalanceRequest {
    pub request: RequestId,
    /// Receives progress and report. The rebalance continues when this process ends.
    pub from: Pid,
    pub supervisor: String,
    /// Only return what would move.
    pub dry_run: bool,
    /// Replaces the configured time.
    pub timeout_ms: Option<u64>,
    /// Servers that arrived on their node within this time stay.
    pub after_ms: Option<u64>,
    /// By how much of its share a node may exceed it.
    pub tolerance: Option<f64>,
    /// A node with fewer servers moves none.
    pub min_servers: Option<u32>,
    /// How many servers begin to move per second.
    pub max_per_second: Option<u32>,
}

impl Body for RebalanceRequest {
    const KIND: &'static str = "rebalance_request";

    fn write(&self) -> Vec<Term> {
        let number = |number: u32| uint(number.into());
        let settings = [
            ("after_ms", self.after_ms.map(uint)),
            ("tolerance", self.tolerance.map(float)),
            ("min_servers", self.min_servers.map(number)),
            ("max_per_second", self.max_per_second.map(number)),
        ];
        let what = [
            ("supervisor", self.supervisor.term()),
            ("dry_run", self.dry_run.term()),
            ("timeout_ms", self.timeout_ms.term()),
        ];
        let given = settings.into_iter().filter_map(|(key, setting)| Some((key, setting?)));
        vec![self.request.term(), self.from.term(), map(what.into_iter().chain(given))]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [request, from, what] = exactly(fields)?;
        let what = Fields::of(what, "rebalance_request")?;
        Ok(RebalanceRequest {
            request: RequestId::read(request, "request")?,
            from: Pid::read(from, "from")?,
            supervisor: Value::of_key(&what, "supervisor")?,
            dry_run: Value::of_key(&what, "dry_run")?,
            timeout_ms: Value::of_key(&what, "timeout_ms")?,
            after_ms: what.maybe("after_ms", read_u64)?,
            tolerance: what.maybe("tolerance", read_f64)?,
            min_servers: what.maybe("min_servers", read_u32)?,
            max_per_second: what.maybe("max_per_second", read_u32)?,
        })
    }
}
