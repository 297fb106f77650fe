//! What one run of the demo does: every number that shapes it, as it also appears in the report.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::args::Args;

/// How a node's servers are treated when it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The existing shutdown, no handoff
    Graceful,
    /// A plain task stream over `rehome_child`
    Naive,
    /// `durable_handoff`
    Handoff,
}

/// Which nodes are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The first node, which has all servers, stops; none replaces it
    Drain,
    /// Every node in turn stops and a fresh node of a new release takes its place
    Rolling,
}

/// When a rolling deploy starts the fresh node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deploy {
    /// Before the old node is told to stop, once every node sees its heartbeat
    Surge,
    /// When the old node is gone
    InPlace,
}

/// How handoff mode chooses the number of servers in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Concurrency {
    /// As many as the store serves without queueing, up to `--max-concurrency`
    Adaptive,
    /// Always `--max-concurrency`
    Fixed,
}

macro_rules! display_as_flag_value {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = self.to_possible_value();
                f.write_str(value.as_ref().map_or("", |value| value.get_name()))
            }
        }
    )*};
}
display_as_flag_value!(Mode, Scenario, Deploy, Concurrency);

/// The settings of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Which nodes are taken away.
    pub scenario: Scenario,
    /// How fresh nodes come; `None` when there are none.
    pub deploy: Option<Deploy>,
    /// Application nodes.
    pub nodes: u32,
    /// Durable servers.
    pub servers: u32,
    /// Client processes.
    pub clients: u32,
    /// What is compared, in this order.
    pub modes: Vec<Mode>,
    /// Moves at the same time (naive), at most (handoff).
    pub max_concurrency: u32,
    /// How handoff mode chooses the number in flight.
    pub concurrency: Concurrency,
    /// Duration of one store request.
    pub latency_ms: u32,
    /// Requests the store serves at once; `None` for any number.
    pub slots: Option<u32>,
    /// Whether defaults were shortened.
    pub quick: bool,
    /// How often every node looks for servers that run nowhere. 60 s is what DurableServer does on object storage.
    pub discovery_interval_ms: u32,
    /// How often every node says how loaded it is. 10 s is DurableServer's default.
    pub heartbeat_interval_ms: u32,
    /// Client load before the first node is told to stop.
    pub warm_up_ms: u32,
    /// How long a mode may take, after the last node is gone, until every server answers again.
    pub recovery_bound_s: u32,
}

impl Settings {
    /// The settings that the flags mean; the flags themselves are checked by [`Args::settings`].
    pub fn from_args(args: &Args) -> Self {
        let quick = args.quick;
        let or = |given: Option<u32>, usual, short| given.unwrap_or(if quick { short } else { usual });
        Self {
            scenario: args.scenario,
            deploy: (args.scenario == Scenario::Rolling).then(|| args.deploy.unwrap_or(Deploy::Surge)),
            nodes: or(args.nodes, 3, 3),
            servers: or(args.servers, 300, 120),
            clients: or(args.clients, 20, 20),
            modes: args.modes.clone(),
            max_concurrency: args.max_concurrency,
            concurrency: args.concurrency,
            latency_ms: args.latency_ms,
            slots: args.slots,
            quick,
            discovery_interval_ms: or(None, 60_000, 10_000),
            heartbeat_interval_ms: or(None, 10_000, 1_000),
            warm_up_ms: or(None, 2_000, 500),
            recovery_bound_s: 300,
        }
    }

    /// [`Self::warm_up_ms`] as a duration.
    pub fn warm_up(&self) -> Duration {
        Duration::from_millis(self.warm_up_ms.into())
    }

    /// [`Self::recovery_bound_s`] as a duration.
    pub fn recovery_bound(&self) -> Duration {
        Duration::from_secs(self.recovery_bound_s.into())
    }

    /// The settings by name, for people.
    pub fn described(&self) -> Vec<(&'static str, String)> {
        let seconds = |ms: u32| format!("{} s", f64::from(ms) / 1_000.0);
        let every = |ms: u32, usual: &str| {
            let shortened = if self.quick { format!(", shortened by --quick (else {usual})") } else { String::new() };
            format!("every {}{shortened}", seconds(ms))
        };
        let scenario = match (self.scenario, self.deploy) {
            (Scenario::Drain, _) => "drain: the node with all servers stops, the others are free".to_owned(),
            (Scenario::Rolling, Some(Deploy::InPlace)) => {
                "rolling, in place: each fresh node after its old one".to_owned()
            }
            (Scenario::Rolling, _) => "rolling, surge: each fresh node before its old one".to_owned(),
        };
        let slots = self.slots.map_or("any number of requests at once".to_owned(), |n| format!("{n} requests at once"));
        vec![
            ("Scenario", scenario),
            ("Application nodes", self.nodes.to_string()),
            ("Servers", self.servers.to_string()),
            ("Clients", self.clients.to_string()),
            ("Store", format!("{} ms a request, {slots}", self.latency_ms)),
            (
                "Moves at once",
                format!(
                    "{} (naive), {} up to {} (handoff)",
                    self.max_concurrency, self.concurrency, self.max_concurrency
                ),
            ),
            ("Discovery", every(self.discovery_interval_ms, "60 s")),
            ("Heartbeats", every(self.heartbeat_interval_ms, "10 s")),
            ("Warm-up", format!("{} of client load", seconds(self.warm_up_ms))),
        ]
    }
}
