//! Processor time of the nodes of a run.

use serde::Serialize;

/// Processor time in milliseconds, of all threads.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cpu {
    /// The nodes that stopped, up to their last measurement.
    pub sources: f64,
    /// The other application nodes.
    pub targets: f64,
    pub clients: f64,
}

impl Cpu {
    pub fn total(self) -> f64 {
        self.sources + self.targets + self.clients
    }
}
