//! Bounds of the drain service, each with its reason.
//!
//! Guarantee: all drains together hold at most [`ServiceLimits::servers`] times about 40 bytes (twice that
//! while an engine is built), and for each drain a few copies of its view, which has at most
//! `handoff_wire::view::MAX_BYTES`. Only a peer with the cookie can use that much; others are bounded by
//! `distribution::limits`.

use handoff_core::time::Micros;

#[derive(Debug, Clone)]
pub struct ServiceLimits {
    /// Drains at a time.
    pub drains: usize,
    /// Drains of one node at a time: one for each supervisor, and a few that are over.
    pub drains_per_node: usize,
    /// Servers of all drains together; each takes about 40 bytes.
    pub servers: u64,
    /// Different names of nodes and modules seen on one storage.
    pub names: usize,
    /// How long a drain that is over waits for its last outcomes.
    pub linger: Micros,
    /// How long a storage is remembered after its last drain: its ledger knows what was sent where since the
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
