//! The shapes of stores and servers that a drain is measured on.

use clap::ValueEnum;
use serde::Serialize;

use crate::store::Store;

/// Where servers keep their states, and how long they take to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A store that answers at once: the machine is the limit
    Instant,
    /// 10 ms per request, any number in parallel: the more parallel moves, the faster
    Latency,
    /// 10 ms per request, 8 in parallel: more parallel moves than that only wait
    Slots,
    /// 10 ms per request, 2 in parallel: a first drain must find that without overloading it
    FewSlots,
    /// A store that answers at once, and servers that take 100 ms to start
    SlowStart,
}

impl Shape {
    /// The simulated store of this shape.
    pub fn store(self) -> Store {
        let (latency_ms, slots) = match self {
            Self::Instant | Self::SlowStart => (0, None),
            Self::Latency => (10, None),
            Self::Slots => (10, Some(8)),
            Self::FewSlots => (10, Some(2)),
        };
        Store::Simulated { latency_ms, slots, error_rate: 0.0 }
    }

    /// How long a server takes to start.
    pub fn start_ms(self) -> u32 {
        if self == Self::SlowStart { 100 } else { 0 }
    }

    /// The shape as text.
    pub fn described(self) -> &'static str {
        match self {
            Self::Instant => "instant",
            Self::Latency => "10 ms",
            Self::Slots => "8 slots x 10 ms",
            Self::FewSlots => "2 slots x 10 ms",
            Self::SlowStart => "instant, slow start",
        }
    }
}
