//! What a drain says of itself, while it runs and when it is over.
//!
//! Guarantee: `total` is the sum of `moved`, everything in `left`, and what is still undecided; counters never fall.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::quantiles::Summary;
use crate::reason::Reason;
use crate::time::Micros;

/// Why a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was left to do.
    Done,
    /// Its time was over.
    Deadline,
    /// The breaker opened.
    Failures,
    /// It was cancelled.
    Cancelled,
}

impl Ended {
    /// The name, the same in every language.
    pub const fn name(self) -> &'static str {
        match self {
            Ended::Done => "done",
            Ended::Deadline => "deadline",
            Ended::Failures => "failures",
            Ended::Cancelled => "cancelled",
        }
    }

    /// The reason that servers get which had not had their turn.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Ended::Done | Ended::Deadline => Reason::Deadline,
            Ended::Failures => Reason::Failures,
            Ended::Cancelled => Reason::Cancelled,
        }
    }
}

/// Where a drain is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// All servers.
    pub total: u64,
    /// Still running at the source, waiting for their turn.
    pub pending: u64,
    /// In an attempt.
    pub in_flight: u64,
    /// Stopped and running nowhere: to be placed or released.
    pub displaced: u64,
    /// Told to stop, not down yet.
    pub stopping: u64,
    /// Running elsewhere.
    pub moved: u64,
    /// Given up or found gone.
    pub left: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Servers that needed more than one attempt.
    pub retried: u64,
    /// The limiter's current limit.
    pub limit: u32,
    /// The drain is over.
    pub finished: bool,
}

/// The summary of a drain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// All servers.
    pub total: u64,
    /// Running elsewhere.
    pub moved: u64,
    /// Not moved, by reason.
    pub left: BTreeMap<Reason, u64>,
    /// Servers that needed more than one attempt.
    pub retried: u64,
    /// From the start of the attempt that stopped a server until it was moved: an upper bound of the time it answered
    /// nobody.
    pub gap: Summary,
    /// From the start of the drain to its end, or to now.
    pub duration: Micros,
    /// Servers per node they were moved to, by name.
    pub targets: BTreeMap<Arc<str>, u64>,
    /// The limiter's last limit.
    pub last_limit: u32,
    /// The most attempts ever in flight.
    pub highest_in_flight: u32,
    /// Attempts started.
    pub attempts: u64,
    /// Attempts failed.
    pub failures: u64,
    /// Why it ended; `None` while it runs.
    pub ended: Option<Ended>,
}
