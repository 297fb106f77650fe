//! What several drains have in common: node names, the ledger of assignments, and the limiter of their store.
//!
//! Guarantee: engines that are polled with the same `Shared` neither pile onto the same target nor add up their load on the
//! store. A single drain simply owns one. Drains that share one must use the same module ids.

use crate::config::Config;
use crate::ids::NodeTable;
use crate::ledger::Ledger;
use crate::limiter::Limiter;

/// See the module documentation.
#[derive(Debug)]
pub struct Shared {
    /// Names of all nodes ever seen.
    pub names: NodeTable,
    /// What was assigned to each.
    pub ledger: Ledger,
    /// How many attempts may be in flight on this store.
    pub limiter: Limiter,
    /// Drains under way: while there is one, a rebalance starts nothing.
    pub(crate) drains: u32,
}

impl Shared {
    /// Fresh, for a drain with this configuration.
    pub fn new(config: &Config) -> Self {
        Shared {
            names: NodeTable::default(),
            ledger: Ledger::default(),
            limiter: Limiter::starting_from(config.concurrency, config.max_concurrency, config.learnt),
            drains: 0,
        }
    }
}
