//! What the service says of itself, for people and scripts.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainInfo {
    /// The draining node.
    pub node: String,
    pub supervisor: String,
    /// `loading`, `running` or `over`.
    pub stage: String,
    /// Since it was opened.
    pub age_ms: u64,
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
}
