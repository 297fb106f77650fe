//! Time in this crate: a number that the caller passes.
//!
//! Guarantee: no code in the crate reads a clock. [`Micros`] is a point in time or a span of the caller's
//! monotonic clock, whose zero does not matter. Heartbeat stamps belong to another clock (wall-clock
//! milliseconds of the node that wrote them) and are plain `i64` fields named `*_ms`.

use std::ops::{Add, Sub};

/// Microseconds of the caller's monotonic clock: a point in time or a span, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Micros(pub u64);

impl Micros {
    /// The zero point, and the empty span.
    pub const ZERO: Micros = Micros(0);
    /// Later than any time that occurs: "never".
    pub const MAX: Micros = Micros(u64::MAX);

    /// A span of `ms` milliseconds, saturating.
    pub const fn from_millis(ms: u64) -> Micros {
        Micros(ms.saturating_mul(1_000))
    }

    /// Whole milliseconds in this span, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// The span from `earlier` to `self`. The result is zero when `earlier` is later, so that times in the
    /// wrong order never panic.
    pub const fn since(self, earlier: Micros) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }

    /// This span times `factor`, saturating.
    pub const fn times(self, factor: u64) -> Micros {
        Micros(self.0.saturating_mul(factor))
    }
}

impl Add for Micros {
    type Output = Micros;
    fn add(self, span: Micros) -> Micros {
        Micros(self.0.saturating_add(span.0))
    }
}

impl Sub for Micros {
    type Output = Micros;
    fn sub(self, span: Micros) -> Micros {
        self.since(span)
    }
}
