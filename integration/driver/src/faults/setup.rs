//! The clusters of faults.

use super::expected::Expected;
use crate::kept::FinalWrites;
use crate::settings::{ClockAhead, Synced};
use crate::variant::Executor;

/// What differs between faults. Fields without a comment are those of [`crate::settings::Settings`].
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub nodes: u32,
    /// How many of the nodes, counted from the first, have servers.
    pub full: u32,
    pub servers: u32,
    pub state_bytes: Option<u32>,
    pub executor: Executor,
    /// Duration of one store request.
    pub latency_ms: u32,
    /// Requests the store serves at once.
    pub slots: Option<u32>,
    pub max_concurrency: u32,
    pub timeout_ms: u32,
    pub discovery_interval_ms: u32,
    pub clock_ahead: Option<ClockAhead>,
    pub heartbeat_max_age_ms: u32,
    /// Whether the store reliably takes the final writes of servers.
    pub final_writes: FinalWrites,
    pub slow_child_ms: u32,
    pub lacks_module: Option<usize>,
    pub synced: Synced,
    pub clients: u32,
    /// Whether the fault runs in a cluster without `durable_handoff` first, to compare the states in storage.
    pub compared: bool,
    /// The percentage of the servers that the drain must move; a sweep may find the others.
    pub moves_percent: usize,
    /// The rest of the expected result that is checked for this fault only.
    pub expected: &'static [Expected],
    /// The time limit in seconds, after the last act of the fault, until every server runs exactly once.
    pub bound_s: u32,
}

/// Three nodes, with all servers on the first.
pub const USUAL: Setup = Setup {
    nodes: 3,
    full: 1,
    servers: 120,
    state_bytes: None,
    executor: Executor::Embedded,
    latency_ms: 5,
    slots: None,
    max_concurrency: 50,
    timeout_ms: 15_000,
    discovery_interval_ms: 2_000,
    clock_ahead: None,
    heartbeat_max_age_ms: 8_000,
    final_writes: FinalWrites::Count,
    slow_child_ms: 0,
    lacks_module: None,
    synced: Synced::Half,
    clients: 5,
    compared: false,
    moves_percent: 0,
    expected: &[],
    bound_s: 30,
};

/// All servers must move: a target exists, and there is enough time even on a busy machine. Heartbeats are
/// not the subject.
pub const MOVES_ALL: Setup =
    Setup { timeout_ms: 60_000, heartbeat_max_age_ms: 30_000, moves_percent: 100, bound_s: RESERVED_BOUND_S, ..USUAL };

/// As [`MOVES_ALL`], and the Rust node decides.
pub const WITH_RUST_NODE: Setup = Setup { executor: Executor::Node, bound_s: USUAL.bound_s, ..MOVES_ALL };

/// The drain takes more than a second, in about eight steps, so that a fault can happen in the middle of it.
pub const fn lasting(setup: Setup) -> Setup {
    Setup { latency_ms: 40, max_concurrency: 16, ..setup }
}

/// The reservation of a node that was killed with servers in flight lasts for 40 s. The next sweep then finds
/// these servers.
pub const RESERVED_BOUND_S: u32 = 60;
