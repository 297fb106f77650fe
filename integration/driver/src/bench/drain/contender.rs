//! The ways to drain a node that are compared.

use crate::variant::{Executor, Mode, Variant};

/// A way to drain a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// DurableServer's own shutdown.
    Graceful,
    /// A plain task stream over `rehome_child`, with this many moves at a time.
    Stream(u32),
    /// `durable_handoff` with this executor.
    Handoff(Executor),
}

impl Contender {
    /// The column of the demo for this way to drain.
    pub fn variant(self) -> Variant {
        match self {
            Self::Graceful => Mode::Graceful.into(),
            Self::Stream(_) => Mode::Naive.into(),
            Self::Handoff(executor) => Variant { executor, ..Mode::Handoff.into() },
        }
    }

    /// The number of moves at a time; for `durable_handoff` the ceiling.
    pub fn max_concurrency(self, ceiling: u32) -> u32 {
        if let Self::Stream(at_once) = self { at_once } else { ceiling }
    }

    pub fn name(self) -> String {
        match self {
            Self::Graceful => "graceful shutdown".to_owned(),
            Self::Stream(at_once) => format!("task stream, {at_once} at once"),
            Self::Handoff(Executor::Embedded) => "durable_handoff".to_owned(),
            Self::Handoff(Executor::Node) => "durable_handoff, Rust node".to_owned(),
        }
    }
}
