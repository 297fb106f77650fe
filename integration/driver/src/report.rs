//! The figures of a run, in the form in which they are written as JSON.

pub mod nodes;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::beam::events;
use crate::cpu::Cpu;
use crate::quantiles::Quantiles;
use crate::settings::{STOP_BOUND, Settings};
use crate::variant::{Executor, Mode, Variant};
use crate::{Error, Result};

pub use nodes::NodeReport;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Versions {
    pub durable_server: HostVersion,
    pub elixir: String,
    pub otp: String,
}

/// DurableServer, or this project's stand-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostVersion {
    /// Version of the `durable_server` application.
    pub version: String,
    /// `stand-in` or `external`.
    pub kind: String,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { durable_server: HostVersion { version, kind }, elixir, otp } = self;
        write!(f, "DurableServer {version} ({kind}) on Elixir {elixir}, OTP {otp}")
    }
}

impl From<events::Versions> for Versions {
    fn from(versions: events::Versions) -> Self {
        let durable_server = HostVersion { version: versions.host_version, kind: versions.host_kind };
        Self { durable_server, elixir: versions.elixir, otp: versions.otp }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub versions: Versions,
    pub settings: Settings,
    #[serde(serialize_with = "by_mode")]
    pub modes: Vec<(Variant, ModeReport)>,
}

/// A JSON object in the order of the runs.
fn by_mode<S: serde::Serializer>(modes: &[(Variant, ModeReport)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(modes.iter().map(|(mode, report)| (mode, report)))
}

/// The figures of one mode. Durations are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ModeReport {
    /// Servers on the stopping nodes, over all drains.
    pub total: usize,
    /// Servers that ran elsewhere before the stopping node was gone.
    pub moved: usize,
    /// Servers that stopped with their node. A sweep finds them.
    pub left: usize,
    /// From the old process's user `terminate/2` to the new one's `init`, over all moves.
    pub gap_ms: Quantiles,
    /// From SIGTERM until nothing ran on the node and everything that it moved was up. Overlapping drains
    /// count once; other drains are summed.
    pub drain_ms: f64,
    /// From the first SIGTERM until the last server was back; `None` when some were not.
    pub recovery_ms: Option<f64>,
    /// The servers of the stopping nodes by target, over all drains.
    pub targets: BTreeMap<String, usize>,
    /// Servers per node at the end.
    pub final_share: BTreeMap<String, usize>,
    pub calls: u64,
    /// Calls without an answer.
    pub failed_calls: u64,
    pub failed_by: BTreeMap<String, u64>,
    /// Increments that a client had an answer to and that the server lacks.
    pub lost_increments: u64,
    /// Increments that no client can have caused, so they were counted twice.
    pub extra_increments: u64,
    /// How often a server started while another process of it had not stopped.
    pub double_owners: usize,
    /// The average number of starts per server after the first one.
    pub moves_per_server: f64,
    /// Servers that did not answer at the end.
    pub unreachable: usize,
    /// Servers whose state, apart from the counter, differs from that of their first start.
    pub altered_states: usize,
    /// Drains by executor, from their own reports; empty without `durable_handoff`.
    pub decided_by: BTreeMap<String, usize>,
    /// Durations of calls that overlapped with a drain.
    pub call_ms_draining: Quantiles,
    /// Durations of all other calls.
    pub call_ms_otherwise: Quantiles,
    /// The times that calls waited for their server. Plain clients never wait.
    pub waited_ms: Quantiles,
    /// Processor time while nodes stopped.
    pub cpu_ms: Cpu,
    /// Requests to the simulated store by kind, from the first SIGTERM on; `None` for a real store.
    pub store_ops: Option<BTreeMap<String, u64>>,
    /// Requests at the simulated store at the same time, from the first SIGTERM until the last node was gone.
    pub store_load: Option<Load>,
    pub nodes: Vec<NodeReport>,
    /// The same figures by stopped node.
    pub drains: Vec<DrainReport>,
    /// Notes: killed nodes, servers that did not come back.
    pub notes: Vec<String>,
    /// Every gap, for the plot.
    #[serde(skip)]
    pub gaps: Vec<GapPoint>,
    /// How many servers each node had, over time, for the plot.
    #[serde(skip)]
    pub shares: Vec<ShareLine>,
}

/// The number of servers of a node over time.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareLine {
    pub node: String,
    /// Pairs of a time, in milliseconds since the first event of the deploy, and the number of servers from
    /// then on; ordered by time.
    pub steps: Vec<(f64, usize)>,
}

/// Requests at the store at the same time, served and waiting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    pub max: u64,
    /// The average over the time with requests.
    pub mean: f64,
}

impl Load {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run are far below 2^53")]
    pub fn of(stats: &BTreeMap<String, u64>) -> Self {
        let of = |name| stats.get(name).copied().unwrap_or(0);
        Self { max: of("max_outstanding"), mean: of("outstanding_us") as f64 / of("busy_us").max(1) as f64 }
    }
}

/// The kinds of requests in [`ModeReport::store_ops`], which also has other counts.
pub const STORE_OPS: [&str; 5] = ["get", "put", "claim", "delete", "list"];

impl ModeReport {
    /// The violated guarantees of this mode: nothing is lost, and nothing runs or counts twice.
    pub fn broken(&self) -> Vec<String> {
        let counts = [
            (self.lost_increments, "acknowledged increments are lost"),
            (self.extra_increments, "increments are counted twice"),
            (self.double_owners as u64, "servers started while another process of them had not stopped"),
            (self.altered_states as u64, "states differ from the start"),
        ];
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }

    /// The violated promises of a column: see [`Self::broken`]; servers that do not answer; drains with another
    /// executor than the column's; and nodes with `durable_handoff` that stopped without a drain, or did not stop.
    pub fn broken_in(&self, variant: Variant) -> Vec<String> {
        let mut broken = self.broken();
        if self.unreachable > 0 {
            broken.push(format!("{} servers do not answer", self.unreachable));
        }
        let others = self.decided_by.iter().filter(|(who, _)| **who != variant.executor.to_string() && !variant.killed);
        broken.extend(others.map(|(who, drains)| format!("{who} decided in {drains} drains")));
        if variant.mode == Mode::Handoff {
            let (stopped, drained) = (self.drains.len(), self.decided_by.values().sum::<usize>());
            if drained < stopped {
                broken.push(format!("{stopped} nodes stopped, with {drained} drains"));
            }
            let killed = self.drains.iter().filter(|drain| drain.shutdown_ms >= STOP_BOUND.as_secs_f64() * 1_000.0);
            broken.extend(killed.map(|drain| format!("{} did not stop and was killed", drain.node)));
        }
        broken
    }
}

/// The figures of one stopped node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DrainReport {
    pub node: String,
    /// Servers on it.
    pub total: usize,
    pub moved: usize,
    pub left: usize,
    pub gap_ms: Quantiles,
    /// From SIGTERM until nothing ran on the node and everything that it moved was up.
    pub drain_ms: f64,
    /// From SIGTERM until it was gone.
    pub shutdown_ms: f64,
    /// Its servers by target, at the end of the run.
    pub targets: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GapPoint {
    /// Its start, counted from the first SIGTERM.
    pub at_ms: f64,
    pub gap_ms: f64,
}

impl Report {
    /// The report of a mode with this executor, if it ran; with several kinds of clients, the first.
    pub fn mode(&self, mode: Mode, executor: Executor) -> Option<&ModeReport> {
        self.modes.iter().find(|(variant, _)| variant.is(mode, executor)).map(|(_, report)| report)
    }

    /// The violations by column: see [`ModeReport::broken_in`], and columns of `durable_handoff` in which most servers
    /// stopped with their node.
    pub fn broken(&self) -> Vec<String> {
        let of_mode = |(variant, mode): &(Variant, ModeReport)| {
            let mut broken = mode.broken_in(*variant);
            if variant.mode == Mode::Handoff && mode.moved * 2 < mode.total {
                broken.push(format!("{} of {} servers moved", mode.moved, mode.total));
            }
            broken.into_iter().map(|what| format!("{variant}: {what}")).collect::<Vec<_>>()
        };
        self.modes.iter().flat_map(of_mode).collect()
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has string keys and finite numbers only")
    }
}

pub fn write(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).map_err(Error::io(format!("writing {}", path.display())))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::render::fixture;

    fn keys(value: &Value) -> String {
        value.as_object().expect("an object").keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn json() -> Value {
        serde_json::from_str(&fixture::report().to_json()).unwrap()
    }

    #[test]
    fn the_report_begins_with_the_measurement_and_the_versions() {
        let json = json();
        assert_eq!(keys(&json), "durable_server elixir modes otp settings");
        assert_eq!(json["durable_server"], serde_json::json!({"version": "0.1.5", "kind": "stand-in"}));
        let settings = "attempt_timeout_ms beams call_every_ms clients clock_ahead concurrency deploy \
                        discovery_interval_ms draining heartbeat_interval_ms heartbeat_max_age_ms joining \
                        kill_node_at lacks_module max_concurrency modes nodes partitions quick rebalance \
                        recovery_bound_s scenario second_drain servers slow_child_ms start_ms state_bytes \
                        store sync_one_in synced timeout_ms warm_up_ms";
        assert_eq!(keys(&json["settings"]), settings);
        assert_eq!(json["settings"]["deploy"], "surge");
        assert_eq!(
            json["settings"]["store"],
            serde_json::json!({"kind": "simulated", "latency_ms": 10, "slots": null, "error_rate": 0.0})
        );
        assert_eq!(json["settings"]["modes"], serde_json::json!(["graceful", "naive", "handoff"]));
    }

    #[test]
    fn every_mode_has_every_figure() {
        let json = json();
        assert_eq!(keys(&json["modes"]), "graceful handoff naive");
        let figures = "altered_states call_ms_draining call_ms_otherwise calls cpu_ms decided_by \
                       double_owners drain_ms drains extra_increments failed_by failed_calls final_share \
                       gap_ms left lost_increments moved moves_per_server nodes notes recovery_ms \
                       store_load store_ops targets total unreachable waited_ms";
        for mode in ["graceful", "naive", "handoff"] {
            assert_eq!(keys(&json["modes"][mode]), figures);
            assert_eq!(keys(&json["modes"][mode]["gap_ms"]), "count max p50 p90 p99");
        }
        assert_eq!(json["modes"]["handoff"]["gap_ms"]["p50"], 44.3);
        assert_eq!(json["modes"]["handoff"]["targets"]["new1"], 100);
        assert_eq!(json["modes"]["graceful"]["recovery_ms"], Value::Null);
    }

    #[test]
    fn every_drain_has_its_own_figures() {
        assert_eq!(
            keys(&json()["modes"]["naive"]["drains"][0]),
            "drain_ms gap_ms left moved node shutdown_ms targets total"
        );
    }

    #[test]
    fn modes_are_written_in_the_order_of_running() {
        let text = fixture::report().to_json();
        let at = |mode| text.find(&format!("\"{mode}\": {{")).unwrap();
        assert!(at("graceful") < at("naive") && at("naive") < at("handoff"));
    }

    #[test]
    fn violations_are_listed_by_column() {
        let mut report = fixture::report();
        assert!(report.broken().is_empty(), "{:?}", report.broken());
        let (variant, handoff) = &mut report.modes[2];
        variant.executor = Executor::Node;
        (handoff.lost_increments, handoff.unreachable, handoff.altered_states) = (3, 2, 1);
        assert_eq!(
            report.broken(),
            [
                "handoff (node): 3 acknowledged increments are lost",
                "handoff (node): 1 states differ from the start",
                "handoff (node): 2 servers do not answer",
                "handoff (node): embedded decided in 1 drains"
            ]
        );
    }

    #[test]
    fn a_column_whose_nodes_stopped_without_a_drain_or_left_most_servers_is_broken() {
        let mut report = fixture::report();
        let handoff = &mut report.modes[2].1;
        handoff.decided_by.clear();
        handoff.moved = 49;
        handoff.drains[0].shutdown_ms = 130_000.0;
        assert_eq!(
            report.broken(),
            [
                "handoff: 1 nodes stopped, with 0 drains",
                "handoff: old1 did not stop and was killed",
                "handoff: 49 of 100 servers moved"
            ]
        );
        // Without durable_handoff neither is promised.
        report.modes.truncate(1);
        report.modes[0].1.decided_by.clear();
        assert_eq!(report.broken(), [""; 0]);
    }

    #[test]
    fn the_error_of_an_unwritable_file_has_its_path() {
        let error = write(Path::new("/no/such/directory/x.json"), "{}").unwrap_err();
        assert_eq!(error.to_string(), "writing /no/such/directory/x.json");
    }
}
