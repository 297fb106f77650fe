//! Bounds of the drain service, each with its reason.
//!
//! Guarantee: all drains together use at most [`ServiceLimits::servers`] times about 40 bytes (twice that
//! while an engine is built), and for each drain a few copies of its view of at most
//! `handoff_wire::view::MAX_BYTES`. Only a peer with the cookie can use that much. `distribution::limits`
//! bounds all other peers.

use handoff_core::time::Micros;

#[derive(Debug, Clone)]
pub struct ServiceLimits {
    /// Drains at a time.
    pub drains: usize,
    /// Drains of one node at a time: one for each supervisor, and a few that have just ended.
    pub drains_per_node: usize,
    /// Servers of all drains together. Each takes about 40 bytes.
    pub servers: u64,
    /// Distinct names of nodes and modules on one storage.
    pub names: usize,
    /// How long a drain that is over waits for its last outcomes.
    pub linger: Micros,
    /// How long the state of a storage is kept after its last drain. The ledger knows the moves since the
    /// last heartbeats.
    pub remember: Micros,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        ServiceLimits {
            drains: 1_000,
            drains_per_node: 64,
            servers: 20_000_000,
            names: 100_000,
            linger: Micros::from_millis(60_000),
            remember: Micros::from_millis(60_000),
        }
    }
}
