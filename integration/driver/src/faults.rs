//! Faults in real clusters: nodes are killed, paused and disconnected, and stores fail, while clients call
//! and all servers are recorded.
//!
//! A fault is an entry of the [`catalogue`]: a description, the expected result, a cluster, and a function
//! that causes the fault. The same [`checks`] run after each.

pub mod args;
pub mod catalogue;
pub mod checks;
pub mod expected;
pub mod page;
pub mod run;
pub mod scene;
pub mod setup;
pub mod table;

use crate::Result;
use scene::Scene;

pub use expected::Expected;
pub use setup::{MOVES_ALL, RESERVED_BOUND_S, Setup, USUAL, WITH_RUST_NODE, lasting};

#[derive(Debug)]
pub struct Fault {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// The fault, in words.
    pub done: &'static str,
    /// The expected result for the servers.
    pub happens: &'static str,
    pub setup: Setup,
    /// Causes the fault. Returns when everything is done; nodes that were told to stop may still be stopping.
    pub inject: fn(&mut Scene) -> Result<()>,
}
