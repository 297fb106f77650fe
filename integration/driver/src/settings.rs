//! The settings of one run of the demo. The report contains them.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::durations::exact;
use crate::flags::shown_as_flag;
use crate::releases::Releases;
use crate::store::Store;
use crate::variant::Variant;

/// Which nodes stop or join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The first node, which has all servers, stops; none replaces it
    Drain,
    /// Every node in turn stops and a fresh node of a new release takes its place
    Rolling,
    /// Several nodes, which have --servers each, stop at the same moment
    Together,
    /// Fresh nodes join the others, which have all servers; none stops
    ScaleOut,
}

/// When a rolling deploy starts the fresh node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deploy {
    /// Before the old node is told to stop, when every node has received the fresh node's heartbeat
    Surge,
    /// After the old node has ended
    InPlace,
}

/// How handoff mode chooses the number of servers in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Concurrency {
    /// As many as the store serves without queueing, or more while moves are short, up to `--max-concurrency`
    Adaptive,
    /// Always `--max-concurrency`
    Fixed,
}

/// Which servers store each increment before it is answered; the others store their state when they stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Synced {
    /// None of them
    None,
    /// Every second one, from the first on
    Half,
    /// All of them
    All,
}

/// What the calls of clients do to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    /// They change the state, so a server has something to store when it stops
    Change,
    /// They only read
    Read,
}

shown_as_flag!(Scenario, Deploy, Concurrency, Synced);

/// A node whose clock is ahead of the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClockAhead {
    /// Which application node, from 0.
    pub node: usize,
    pub seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    #[serde(rename = "beams")]
    pub releases: Releases,
    pub scenario: Scenario,
    /// When new nodes start; `None` without new nodes.
    pub deploy: Option<Deploy>,
    pub nodes: u32,
    /// How many nodes stop at the same moment; `None` if one at a time does.
    pub draining: Option<u32>,
    /// How many nodes join; `None` if none does.
    pub joining: Option<u32>,
    /// Whether nodes in handoff mode have the option `rebalance`. The run then goes on until shares are even.
    pub rebalance: bool,
    pub servers: u32,
    pub clients: u32,
    /// What is compared, in this order.
    pub modes: Vec<Variant>,
    /// The part of the servers moved at which the Rust node is killed.
    pub kill_node_at: Option<f64>,
    /// The number of moves at a time (naive), or its ceiling (handoff).
    pub max_concurrency: u32,
    pub concurrency: Concurrency,
    /// The time limit of the drain, `timeout_ms` of `handoff_on_shutdown`.
    pub timeout_ms: u32,
    /// The time limit of one attempt, `attempt_timeout_ms` of `handoff_on_shutdown`.
    pub attempt_timeout_ms: u32,
    pub store: Store,
    /// Size of each server's state; `None` for documents of about 4 KB.
    pub state_bytes: Option<u32>,
    /// How long each server takes to start.
    pub start_ms: u32,
    /// Which servers store each increment before it is answered. The others store their state when they stop.
    pub synced: Synced,
    /// Clients have one in this many increments stored before the answer, and check that it is; 0 for none.
    pub sync_one_in: u32,
    /// The maximum age of a heartbeat, in runs of faults; `None` for DurableServer's default.
    pub heartbeat_max_age_ms: Option<u32>,
    /// In runs of faults: on each application node a child stops before the servers, and takes this long.
    pub slow_child_ms: u32,
    /// In runs of faults: the node with a wrong clock.
    pub clock_ahead: Option<ClockAhead>,
    /// In runs of faults: the application node, counted from 0, whose release lacks the module of half of the
    /// servers.
    pub lacks_module: Option<usize>,
    /// In runs of faults: whether a single pair of nodes can be disconnected. By default OTP's `global` then
    /// disconnects more nodes.
    pub partitions: bool,
    /// In benches: whether other nodes start the leftovers of a drain.
    #[serde(skip)]
    pub start_leftovers: bool,
    /// In benches: whether `durable_handoff` drains the first node, and one of the targets stops after it.
    pub second_drain: bool,
    pub call_every_ms: u32,
    /// In `bench drain`: what calls do.
    #[serde(skip)]
    pub call_kind: CallKind,
    /// Whether defaults were shortened.
    pub quick: bool,
    /// The interval at which every node looks for servers that run nowhere. DurableServer's default on object
    /// storage is 60 s.
    pub discovery_interval_ms: u32,
    /// The interval of heartbeats. DurableServer's default is 10 s.
    pub heartbeat_interval_ms: u32,
    /// How long clients call before the first node is told to stop, and after every server is back.
    pub warm_up_ms: u32,
    /// The time limit, after the last node is gone, until every server answers again.
    pub recovery_bound_s: u32,
}

/// `after_ms` of the option `rebalance`: far below its default, because the run waits for nothing else.
pub const REBALANCE_AFTER_MS: u32 = 3_000;

/// When a node that was told to stop is killed: after the drain (30 s), the graceful shutdown (55 s), and
/// half as much again.
pub const STOP_BOUND: Duration = Duration::from_secs(130);

impl Settings {
    pub fn warm_up(&self) -> Duration {
        Duration::from_millis(self.warm_up_ms.into())
    }

    pub fn recovery_bound(&self) -> Duration {
        Duration::from_secs(self.recovery_bound_s.into())
    }

    /// How many application nodes, counted from the first, have servers before the first one stops.
    pub fn full_nodes(&self) -> u32 {
        match self.scenario {
            Scenario::Drain => 1,
            Scenario::Rolling | Scenario::ScaleOut => self.nodes,
            Scenario::Together => self.draining.unwrap_or(1),
        }
    }

    pub fn described(&self) -> Vec<(&'static str, String)> {
        let every = |ms: u32, usual: &str| {
            let shortened = if self.quick { format!(", shortened by --quick (else {usual})") } else { String::new() };
            format!("every {}{shortened}", exact(ms.into()))
        };
        let scenario = match (self.scenario, self.deploy) {
            (Scenario::Drain, _) => "drain: the node with all servers stops, the others are free".to_owned(),
            (Scenario::Rolling, Some(Deploy::InPlace)) => {
                "rolling, in place: each fresh node after its old one".to_owned()
            }
            (Scenario::Rolling, _) => "rolling, surge: each fresh node before its old one".to_owned(),
            (Scenario::Together, _) => {
                let draining = self.draining.unwrap_or(1);
                format!(
                    "together: {draining} nodes with {} servers each stop at the same moment",
                    self.servers / draining
                )
            }
            (Scenario::ScaleOut, _) => {
                format!("scale-out: {} nodes join {}; none stops", self.joining.unwrap_or(0), self.nodes)
            }
        };
        let mut described = vec![
            ("Scenario", scenario),
            ("Application nodes", self.nodes.to_string()),
            ("Servers", self.servers.to_string()),
            ("Clients", self.clients.to_string()),
            ("Store", self.store.described()),
            (
                "Moves at once",
                format!(
                    "{} (naive), {} up to {} (handoff)",
                    self.max_concurrency, self.concurrency, self.max_concurrency
                ),
            ),
            ("Discovery", every(self.discovery_interval_ms, "60 s")),
            ("Heartbeats", every(self.heartbeat_interval_ms, "10 s")),
            ("Warm-up", format!("{} of client load, and as long at the end", exact(self.warm_up_ms.into()))),
        ];
        if self.rebalance {
            described.push((
                "Rebalance",
                format!("handoff: when nothing has changed for {}", exact(REBALANCE_AFTER_MS.into())),
            ));
        }
        if let Some(part) = self.kill_node_at {
            described.push((
                "Rust node",
                format!("in \u{201c}node killed\u{201d}: SIGKILL when {part} of the servers have moved"),
            ));
        }
        described
    }
}
