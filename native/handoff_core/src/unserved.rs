//! Targets at which attempts fail in the store. If the store fails everywhere, the store is the cause. If it
//! serves other targets meanwhile, the cause is the target.
//!
//! Guarantee: one success at a target clears it. No target is blamed while the store fails everywhere.

use std::collections::BTreeMap;

use crate::ids::NodeId;
use crate::store_health::StoreHealth;
use crate::time::Micros;

/// This many failures in a row at one target are not chance.
const IN_A_ROW: u32 = 3;

/// See the [module documentation](self).
#[derive(Debug, Clone, Default)]
pub struct Unserved {
    /// The time of the first failure since the last success, and the number of failures.
    targets: BTreeMap<NodeId, (Micros, u32)>,
}

impl Unserved {
    /// Records that the store failed an attempt at `target`. Returns true if the target is the cause.
    pub fn failed(&mut self, target: NodeId, store: &StoreHealth, now: Micros) -> bool {
        let (since, failures) = self.targets.entry(target).or_insert((now, 0));
        *failures += 1;
        *failures >= IN_A_ROW && store.served_since(*since)
    }

    /// Records that an attempt at `target` succeeded.
    pub fn served(&mut self, target: NodeId) {
        self.targets.remove(&target);
    }

    /// `targets` and those at which the store fails.
    pub fn and(&self, targets: &[NodeId]) -> Vec<NodeId> {
        let more = self.targets.keys().filter(|id| !targets.contains(id));
        targets.iter().chain(more).copied().collect()
    }
}
