//! Processor time of the nodes of a run.

use serde::Serialize;

/// Processor time in milliseconds, of all threads.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cpu {
    /// Of the nodes that stopped, up to the last look at them.
    pub sources: f64,
    /// Of the other application nodes.
    pub targets: f64,
    /// Of the node with the clients.
    pub clients: f64,
}

impl Cpu {
    /// All of it.
    pub fn total(self) -> f64 {
        self.sources + self.targets + self.clients
    }
}
