//! Pauses after failures (rests). During the rest of a target no further server tries that target. During the
//! rest of the store no further server is stopped.
//!
//! Guarantee: failures of attempts that were in flight when a rest began belong to the same incident. They
//! neither lengthen the rest nor count again. One success ends a series of incidents.

use std::collections::HashMap;

use crate::ids::NodeId;
use crate::placement::Access;
use crate::time::Micros;

/// The first rest: about the time that a starting node needs to get ready.
const FIRST_REST: Micros = Micros::from_millis(250);
/// The longest rest. A drain takes seconds.
const LONGEST_REST: Micros = Micros::from_millis(4_000);
/// After this many consecutive incidents no server waits for the target.
const GIVEN_UP_AFTER: u32 = 3;

/// The incidents of one target, or of the store.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cooldown {
    incidents: u32,
    since: Micros,
    until: Micros,
}

impl Cooldown {
    /// Records that an attempt that began at `started` has failed at `now`. Returns true for a new incident.
    pub fn failed(&mut self, started: Micros, now: Micros) -> bool {
        if self.incidents > 0 && started < self.since {
            return false;
        }
        let rest = FIRST_REST.times(1 << self.incidents.min(10)).min(LONGEST_REST);
        *self = Cooldown { incidents: self.incidents + 1, since: now, until: now + rest };
        true
    }

    /// Records a successful attempt.
    pub fn succeeded(&mut self) {
        *self = Cooldown::default();
    }

    /// Whether the target may be used now.
    pub fn access(&self, now: Micros) -> Access {
        if now >= self.until {
            Access::Open
        } else if self.incidents >= GIVEN_UP_AFTER {
            Access::Shut
        } else {
            Access::Soon
        }
    }

    /// The end of the current rest; `None` without a rest.
    pub fn ends(&self, now: Micros) -> Option<Micros> {
        (now < self.until).then_some(self.until)
    }
}

/// The rests of all targets of one drain.
#[derive(Debug, Clone, Default)]
pub struct Cooldowns {
    targets: HashMap<NodeId, Cooldown>,
}

impl Cooldowns {
    /// See [`Cooldown::failed`].
    pub fn failed(&mut self, node: NodeId, started: Micros, now: Micros) -> bool {
        self.targets.entry(node).or_default().failed(started, now)
    }

    /// See [`Cooldown::succeeded`].
    pub fn succeeded(&mut self, node: NodeId) {
        self.targets.remove(&node);
    }

    /// See [`Cooldown::access`].
    pub fn access(&self, node: NodeId, now: Micros) -> Access {
        self.targets.get(&node).map_or(Access::Open, |cooldown| cooldown.access(now))
    }

    /// The end of the next rest after `now`.
    pub fn next_end(&self, now: Micros) -> Option<Micros> {
        self.targets.values().filter_map(|cooldown| cooldown.ends(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(0);
    const MS: fn(u64) -> Micros = Micros::from_millis;

    #[test]
    fn fifty_attempts_that_fail_with_one_target_are_one_incident() {
        let mut cooldowns = Cooldowns::default();
        assert!(cooldowns.failed(NODE, MS(0), MS(100)));
        for started in 1..50 {
            assert!(!cooldowns.failed(NODE, MS(started), MS(101)));
        }
        assert_eq!(cooldowns.access(NODE, MS(349)), Access::Soon);
        assert_eq!(cooldowns.access(NODE, MS(350)), Access::Open);
    }

    #[test]
    fn repeated_incidents_lengthen_the_rest_until_the_target_is_given_up() {
        let mut cooldowns = Cooldowns::default();
        for at in [0, 1_000, 2_000] {
            assert!(cooldowns.failed(NODE, MS(at), MS(at)));
        }
        assert_eq!(cooldowns.access(NODE, MS(2_999)), Access::Shut);
        assert_eq!(cooldowns.next_end(MS(2_000)), Some(MS(3_000)));
        cooldowns.succeeded(NODE);
        assert_eq!(cooldowns.access(NODE, MS(2_001)), Access::Open);
    }
}
