//! A scenario: the complete input of a run, as data.
//!
//! [`named`] lists the named ones. [`random`] and [`crate::rebalance`] generate one from a seed.

pub mod deploy;
pub mod named;
pub mod random;

use handoff_core::{Config, StickyLevel};

use crate::cluster::{NodeIndex, NodeSpec};
use crate::store::StoreShape;

#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub seed: u64,
    /// All nodes of the run. The script starts those with a negative age.
    pub nodes: Vec<NodeSpec>,
    /// The servers of each node at the start.
    pub servers: Vec<Load>,
    pub modules: u32,
    pub stickies: Vec<Vec<StickyLevel>>,
    pub store: StoreShape,
    /// Delays of attempts outside the store.
    pub noise: Noise,
    pub faults: Faults,
    /// The script: events and their times.
    pub script: Vec<(When, Do)>,
    /// The configuration of every drain; the source is filled in.
    pub config: Config,
    pub strategy: Strategy,
    /// The number of Rust nodes. Each has one ledger and one limiter for the drains that it coordinates. 0:
    /// each drain has its own.
    pub coordinators: usize,
    /// Whether a drain begins by asking connected nodes for their numbers of servers.
    pub asks: bool,
    /// The largest relative error of other nodes' numbers of servers in a view.
    pub count_noise: f64,
}

/// Servers of one kind on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub node: NodeIndex,
    pub count: u32,
    pub module: u32,
    pub sticky: u32,
    pub priority: i32,
}

/// Delays of attempts outside the store; none by default. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Noise {
    /// Processor time before each request to the store, on two cores.
    pub cpu_ms: f64,
    /// How long other work keeps a core at a time. The other work always wants both cores. 0 means that there
    /// is none.
    pub busy_ms: f64,
    /// The largest delay before each request; delays are distributed evenly.
    pub jitter_ms: f64,
    /// Pauses of the whole machine: how many per second, and their average length.
    pub stalls: (f64, f64),
    /// A cold start, in which code is loaded and connections are opened: how many first attempts take longer,
    /// and by how much.
    pub cold: (u32, f64),
    /// The part of servers whose own `terminate` takes longer, and by how much.
    pub slow_stop: (f64, f64),
}

/// Random faults: probabilities for each attempt unless stated otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// `rehome_child` is overloaded and does nothing.
    pub overloaded: f64,
    /// The server's own `terminate` does not return in time.
    pub hang: f64,
    /// A server whose stop hangs never stops.
    pub hang_for_ever: f64,
    /// The server's own `terminate` raises, and its final write is skipped.
    pub stop_fails: f64,
    /// The server stops by itself before it is told to.
    pub gone: f64,
    /// A server (not an attempt) fails in `init` wherever it starts.
    pub poisoned: f64,
    /// The server's state is not in the store when the run starts.
    pub unsynced: f64,
    /// The target refuses for no reason we know.
    pub refusal: f64,
    /// A client has already started the server on another node.
    pub elsewhere: f64,
    /// How long a registry broadcast takes on average, milliseconds.
    pub registry_lag_ms: f64,
    /// How long a server's own `terminate` takes, median, milliseconds.
    pub terminate_ms: f64,
}

/// When an event of a script happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Milliseconds after the start of the run.
    At(u64),
    /// Milliseconds after the drain of this node has ended.
    After(NodeIndex, u64),
}

/// An event of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    Drain(NodeIndex),
    /// The node rebalances: it moves its excess.
    Rebalance(NodeIndex),
    /// The node's drain is cancelled, if it runs.
    Cancel(NodeIndex),
    /// The node starts without servers.
    Start(NodeIndex),
    /// The node restarts under the same name with the new release and without servers.
    Upgrade(NodeIndex),
    /// The node's processes end, and all nodes notice within milliseconds. Its servers are down.
    Kill(NodeIndex),
    /// As `Kill`, but no node notices: the region or the network is gone.
    Vanish(NodeIndex),
    /// The connections to the node are lost, although it runs.
    Disconnect(NodeIndex),
    /// The connections to the node are restored.
    Reconnect(NodeIndex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    Engine,
    /// `rehome_child` without a target: the first node by DurableServer's rules; without limits, the one with
    /// the newest heartbeat.
    NewestHeartbeat,
    /// The eligible node that reported the fewest servers, without counting servers sent since then.
    LeastBusy,
}

impl Scenario {
    /// Whether the scenario has one drain and no faults, so that every server with a target must be moved.
    pub fn is_clean(&self) -> bool {
        let faults = Faults { registry_lag_ms: 0.0, terminate_ms: 0.0, ..self.faults };
        faults == Faults::default()
            && self.store.weather.is_empty()
            && self.count_noise == 0.0
            && matches!(self.script.as_slice(), [(_, Do::Drain(_))])
            && self.nodes.iter().all(|node| {
                node.not_ready.is_empty() && node.suspended.is_empty() && node.age_ms >= 0 && node.skew_ms == 0
            })
    }
}
