//! The progress of a drain and its report.
//!
//! Guarantee: `total` is the sum of `moved`, everything in `left`, and what is still undecided. Counters
//! never fall.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::balance::Idle;
use crate::limiter::Learnt;
use crate::quantiles::Summary;
use crate::reason::Reason;
use crate::time::Micros;

/// Why a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Ended {
    /// Every server was decided.
    Done,
    /// The time limit was reached.
    Deadline,
    /// The breaker opened.
    Failures,
    /// The drain was cancelled.
    Cancelled,
}

impl Ended {
    /// Every value.
    pub const ALL: [Ended; 4] = [Ended::Done, Ended::Deadline, Ended::Failures, Ended::Cancelled];

    /// The name, the same in every language.
    pub const fn name(self) -> &'static str {
        match self {
            Ended::Done => "done",
            Ended::Deadline => "deadline",
            Ended::Failures => "failures",
            Ended::Cancelled => "cancelled",
        }
    }

    /// The reason of servers that had not been tried when the drain ended.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Ended::Done | Ended::Deadline => Reason::Deadline,
            Ended::Failures => Reason::Failures,
            Ended::Cancelled => Reason::Cancelled,
        }
    }
}

/// What a drain waits for when nothing is in flight although servers are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum WaitsFor {
    /// An attempt of another drain on the same store, or a server of its own that stops or is released: there are as
    /// many as the limit allows.
    Limit,
    /// The store, which has failed an attempt.
    Store,
    /// A target: there is none, or all that fit rest after failures or are at their caps.
    Target,
    /// The next move that `max_per_second` allows.
    Pace,
}

impl WaitsFor {
    /// Every value.
    pub const ALL: [WaitsFor; 4] = [WaitsFor::Limit, WaitsFor::Store, WaitsFor::Target, WaitsFor::Pace];

    /// The name, the same in every language.
    pub const fn name(self) -> &'static str {
        match self {
            WaitsFor::Limit => "limit",
            WaitsFor::Store => "store",
            WaitsFor::Target => "target",
            WaitsFor::Pace => "pace",
        }
    }
}

/// The current progress of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Progress {
    /// All servers.
    pub total: u64,
    /// Servers that run at the source and wait for an attempt, the first or another one.
    pub pending: u64,
    /// In an attempt.
    pub in_flight: u64,
    /// Servers that are stopped and run nowhere. They will be placed or released.
    pub displaced: u64,
    /// Servers that were told to stop and have not ended yet.
    pub stopping: u64,
    /// Servers that run elsewhere.
    pub moved: u64,
    /// Servers that were given up or had ended.
    pub left: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Servers that needed more than one attempt.
    pub retried: u64,
    /// The limiter's current limit.
    pub limit: u32,
    /// The excess of a rebalance when it began; 0 in a drain.
    #[cfg_attr(feature = "serde", serde(default))]
    pub excess: u64,
    /// Why nothing is in flight although servers are left; `None` while something is, and for a reason of a later
    /// release.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::shape::known_waits_for")
    )]
    pub waits_for: Option<WaitsFor>,
    /// Whether the drain is over.
    pub finished: bool,
}

/// How many attempts of a drain ran at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AtATime {
    /// The limiter's last limit.
    pub last: u32,
    /// The most attempts in flight at any time.
    pub highest: u32,
}

/// One node of a [`Balance`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeShare {
    /// Its name.
    #[cfg_attr(feature = "serde", serde(with = "crate::shape::text"))]
    pub name: Arc<str>,
    /// How many servers it has.
    pub servers: u64,
    /// How many it should have.
    pub share: f64,
}

/// The balance of a cluster before and after a rebalance.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Balance {
    /// Why nothing was moved or, with an excess, why the rebalance stopped early.
    #[cfg_attr(feature = "serde", serde(default, deserialize_with = "crate::shape::known_idle"))]
    pub idle: Option<Idle>,
    /// How many servers the source should move.
    pub excess: u64,
    /// Every node that has servers, by name, when the rebalance began.
    pub before: Vec<NodeShare>,
    /// The same at the end, by what the source knows then; in a plan, the expected numbers.
    pub after: Vec<NodeShare>,
}

impl Balance {
    /// How many servers the source should move, without those of `left` that have ended by themselves: only servers that
    /// began to move are found to have ended.
    pub fn to_move(&self, left: &BTreeMap<Reason, u64>) -> u64 {
        self.excess.saturating_sub(left.get(&Reason::Gone).copied().unwrap_or(0))
    }
}

/// The summary of a drain.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Report {
    /// All servers.
    pub total: u64,
    /// Servers that run elsewhere.
    pub moved: u64,
    /// Not moved, by reason.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::shape::known_reasons"))]
    pub left: BTreeMap<Reason, u64>,
    /// Servers that needed more than one attempt.
    pub retried: u64,
    /// From the start of the attempt that stopped a server until the server was moved: an upper bound of the
    /// time in which the server was unavailable.
    #[cfg_attr(feature = "serde", serde(rename = "gap_us"))]
    pub gap: Summary,
    /// From the start of the drain to its end, or to now.
    #[cfg_attr(feature = "serde", serde(rename = "duration_us"))]
    pub duration: Micros,
    /// Servers moved, by target.
    #[cfg_attr(feature = "serde", serde(with = "crate::shape::pairs"))]
    pub targets: BTreeMap<Arc<str>, u64>,
    /// How many attempts ran at a time.
    pub concurrency: AtATime,
    /// What the next drain on this store may start from.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub learnt: Option<Learnt>,
    /// Attempts started.
    pub attempts: u64,
    /// Attempts failed.
    pub failures: u64,
    /// Why the drain ended; `None` while it runs, and for a reason of a later release.
    #[cfg_attr(feature = "serde", serde(default, deserialize_with = "crate::shape::known_ended"))]
    pub ended: Option<Ended>,
    /// Only in the report of a rebalance.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub balance: Option<Balance>,
}

impl Report {
    /// How many servers were to move, in a rebalance those above the node's share, without those that have ended by
    /// themselves.
    pub fn to_move(&self) -> u64 {
        let left = |(reason, count): (&Reason, &u64)| if reason.was_to_move() { 0 } else { *count };
        match &self.balance {
            Some(balance) => balance.to_move(&self.left),
            None => self.left.iter().map(left).fold(self.total, u64::saturating_sub),
        }
    }
}
