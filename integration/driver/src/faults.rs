//! Faults in real clusters: nodes are killed, paused and disconnected and stores fail, while clients call and
//! every server is recorded.
//!
//! A fault is an entry of the [`catalogue`]: what is done, what happens, a cluster, and a function that does
//! it. The same [`checks`] run after each.

pub mod args;
pub mod catalogue;
pub mod checks;
pub mod page;
pub mod run;
pub mod scene;
pub mod setup;
pub mod table;

use crate::Result;
use scene::Scene;

pub use setup::{MOVES_ALL, RESERVED_BOUND_S, Setup, USUAL, WITH_RUST_NODE};

#[derive(Debug)]
pub struct Fault {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What is done to the cluster.
    pub done: &'static str,
    /// What becomes of the servers.
    pub happens: &'static str,
    /// The cluster it is done to.
    pub setup: Setup,
    /// Does it. Returns when everything is done; nodes that it told to stop may still be stopping.
    pub inject: fn(&mut Scene) -> Result<()>,
}
