//! The state that several drains share: node names, the ledger of assignments, and the limiter of their
//! store.
//!
//! Guarantee: engines that are polled with the same `Shared` do not overload one target, and together keep
//! within the store's limit. A single drain has one of its own. Drains that share one must use the same
//! module ids.

use crate::config::Config;
use crate::ids::NodeTable;
use crate::ledger::Ledger;
use crate::limiter::Limiter;

/// See the module documentation.
#[derive(Debug)]
pub struct Shared {
    /// Names of all nodes ever seen.
    pub names: NodeTable,
    /// The assignments to each node.
    pub ledger: Ledger,
    /// The limiter of attempts in flight on this store.
    pub limiter: Limiter,
    /// The number of running drains. While there is one, a rebalance starts nothing.
    pub(crate) drains: u32,
}

impl Shared {
    /// A new state for a drain with this configuration.
    pub fn new(config: &Config) -> Self {
        Shared {
            names: NodeTable::default(),
            ledger: Ledger::default(),
            limiter: Limiter::starting_from(config.concurrency, config.max_concurrency, config.learnt),
            drains: 0,
        }
    }
}
