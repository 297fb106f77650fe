//! What the service says of itself, for people and scripts.

use handoff_core::quantiles::Summary;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainInfo {
    /// The draining node.
    pub node: String,
    /// Its number for the drain.
    #[serde(default)]
    pub id: u64,
    pub supervisor: String,
    /// `drain` or `rebalance`.
    #[serde(default)]
    pub goal: String,
    /// `loading`, `running` or `over`.
    pub stage: String,
    /// Since it was opened.
    pub age_ms: u64,
    /// Servers that are to be moved: of a rebalance, what its node has above its share.
    pub total: u64,
    pub moved: u64,
    /// Given up or found gone.
    pub left: u64,
    /// In an attempt.
    pub in_flight: u64,
    /// Stopped and running nowhere.
    pub displaced: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Attempts that may be in flight on its storage.
    pub limit: u32,
    /// Servers moved a second, over the last ten seconds.
    #[serde(default)]
    pub moved_per_s: f64,
    #[serde(flatten)]
    pub gaps: Gaps,
}

/// Gaps of a drain: how long its servers were unavailable at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gaps {
    /// Quantiles. Of a drain that runs, at most a fifth above the exact ones.
    #[serde(default)]
    pub gap_us: Summary,
    /// Upper bound in microseconds and number of gaps, in ascending order.
    #[serde(default)]
    pub gaps: Vec<(u64, u32)>,
}
