//! A scenario: the complete input of a run, as data.
//!
//! [`named`] lists those with a name, [`random`] and [`crate::rebalance`] make one from a seed.

pub mod deploy;
pub mod named;
pub mod random;

use handoff_core::{Config, StickyLevel};

use crate::cluster::{NodeIndex, NodeSpec};
use crate::store::StoreShape;

/// The complete input of a run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Decides every fault and every latency.
    pub seed: u64,
    /// All nodes that ever run; those with a negative age are started by the script.
    pub nodes: Vec<NodeSpec>,
    /// The servers of each node at the start.
    pub servers: Vec<Load>,
    /// The number of their modules.
    pub modules: u32,
    /// The sticky signatures they refer to.
    pub stickies: Vec<Vec<StickyLevel>>,
    /// The store of all of them.
    pub store: StoreShape,
    /// What attempts meet outside the store.
    pub noise: Noise,
    /// Random faults.
    pub faults: Faults,
    /// The script: events and their times.
    pub script: Vec<(When, Do)>,
    /// Every drain's configuration; the source is filled in.
    pub config: Config,
    pub strategy: Strategy,
    /// Drains share one ledger and one limiter, as in the Rust node.
    pub coordinated: bool,
    /// A drain starts by asking the nodes it is connected to how many servers they run.
    pub asks: bool,
    /// Numbers of servers that a rebalance is shown differ from the true ones by up to this part.
    pub count_noise: f64,
}

/// Servers of one kind on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Where they run.
    pub node: NodeIndex,
    pub count: u32,
    pub module: u32,
    /// Their sticky signature.
    pub sticky: u32,
    pub priority: i32,
}

/// What attempts meet outside the store. Nothing by default. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Noise {
    /// Work on the processors, of two cores, before each request to the store.
    pub cpu_ms: f64,
    /// Other work that always wants both cores, and how long it keeps one at a time; 0: none.
    pub busy_ms: f64,
    /// A delay before each request, evenly distributed up to this.
    pub jitter_ms: f64,
    /// Moments in which the whole machine stands still: how many a second, and how long on average.
    pub stalls: (f64, f64),
    /// So many first attempts take so much longer: code is loaded, connections are made.
    pub cold: (u32, f64),
    /// The share of servers whose own `terminate` takes so much longer.
    pub slow_stop: (f64, f64),
}

/// Random faults, as probabilities for each attempt unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// `rehome_child` is overloaded and does nothing.
    pub overloaded: f64,
    /// The server's own `terminate` does not return in time.
    pub hang: f64,
    /// Such a server never goes down.
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
    /// A client has started it on another node already.
    pub elsewhere: f64,
    /// How long a registry broadcast takes on average, milliseconds.
    pub registry_lag_ms: f64,
    /// How long a server's own `terminate` takes, median, milliseconds.
    pub terminate_ms: f64,
}

/// When something in a script happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Milliseconds after the start of the run.
    At(u64),
    /// Milliseconds after the drain of this node has ended.
    After(NodeIndex, u64),
}

/// What happens in a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// The node drains.
    Drain(NodeIndex),
    /// The node moves what it has above its share.
    Rebalance(NodeIndex),
    /// Its drain is cancelled, if it runs.
    Cancel(NodeIndex),
    /// The node starts, empty.
    Start(NodeIndex),
    /// The node starts again under the same name with the new release, empty.
    Upgrade(NodeIndex),
    /// The node's processes end; all nodes notice within milliseconds. Its servers are down.
    Kill(NodeIndex),
    /// The same, but no node notices: the region or the network is gone.
    Vanish(NodeIndex),
    /// The connections to it are lost, though it runs.
    Disconnect(NodeIndex),
    /// The connections are back.
    Reconnect(NodeIndex),
}

/// What decides where servers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The real engine.
    Engine,
    /// `rehome_child` without a target: the first node by the existing rules, without limits the newest
    /// heartbeat.
    NewestHeartbeat,
    /// The eligible node that reported the fewest servers, without counting what was sent since.
    LeastBusy,
}

impl Scenario {
    /// One drain, and nothing goes wrong: everything that has somewhere to go must get there.
    pub fn is_clean(&self) -> bool {
        let faults = Faults { registry_lag_ms: 0.0, terminate_ms: 0.0, ..self.faults };
        faults == Faults::default()
            && self.store.weather.is_empty()
            && matches!(self.script.as_slice(), [(_, Do::Drain(_))])
            && self.nodes.iter().all(|node| node.not_ready.is_empty() && node.age_ms >= 0 && node.skew_ms == 0)
    }
}
