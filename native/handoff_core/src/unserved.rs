//! Targets at which attempts fail in the store. It is the store's fault when it fails everywhere, and the target's when the store
//! serves others meanwhile.
//!
//! Guarantee: one success at a target clears it. What the store fails everywhere is never a target's fault.

use std::collections::BTreeMap;

use crate::ids::NodeId;
use crate::store_health::StoreHealth;
use crate::time::Micros;

/// So many failures in a row at one target are no chance.
const IN_A_ROW: u32 = 3;

/// See the [module documentation](self).
#[derive(Debug, Clone, Default)]
pub struct Unserved {
    /// When the first failure since the last success was, and how many there are.
    targets: BTreeMap<NodeId, (Micros, u32)>,
}

impl Unserved {
    /// The store failed an attempt at `target`. Returns true when that is the target's fault.
    pub fn failed(&mut self, target: NodeId, store: &StoreHealth, now: Micros) -> bool {
        let (since, failures) = self.targets.entry(target).or_insert((now, 0));
        *failures += 1;
        *failures >= IN_A_ROW && store.served_since(*since)
    }

    /// An attempt at `target` succeeded.
    pub fn served(&mut self, target: NodeId) {
        self.targets.remove(&target);
    }

    /// These targets and those at which the store fails.
    pub fn and(&self, targets: &[NodeId]) -> Vec<NodeId> {
        let more = self.targets.keys().filter(|id| !targets.contains(id));
        targets.iter().chain(more).copied().collect()
    }
}
