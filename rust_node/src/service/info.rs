//! Descriptions of the service's drains, for the page, the commands and scripts.

use handoff_core::quantiles::Summary;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainInfo {
    pub node: String,
    /// The node's number for the drain.
    #[serde(default)]
    pub id: u64,
    pub supervisor: String,
    /// `drain` or `rebalance`.
    #[serde(default)]
    pub goal: String,
    /// `loading`, `running` or `over`.
    pub stage: String,
    pub age_ms: u64,
    /// Servers that should move. For a rebalance: what the node has above its share.
    pub total: u64,
    pub moved: u64,
    /// Servers that were given up or had ended.
    pub left: u64,
    pub in_flight: u64,
    /// Servers that are stopped and run nowhere.
    pub displaced: u64,
    pub failures: u64,
    /// The limit of attempts in flight on the drain's storage.
    pub limit: u32,
    /// Why nothing is in flight although servers are left: `limit`, `store`, `target` or `pace`.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Servers moved per second, over the last ten seconds.
    #[serde(default)]
    pub moved_per_s: f64,
    #[serde(flatten)]
    pub gaps: Gaps,
}

/// The gaps of a drain: upper bounds of the time in which each server was unavailable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gaps {
    /// Quantiles. While the drain runs they are at most a fifth above the exact ones.
    #[serde(default)]
    pub gap_us: Summary,
    /// The buckets in ascending order: upper bound in microseconds, number of gaps.
    #[serde(default)]
    pub gaps: Vec<(u64, u32)>,
}
