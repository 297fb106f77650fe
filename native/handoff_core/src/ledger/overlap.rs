//! The servers that a report and the ledger both count.
//!
//! A server on its way counts in the ledger until a report that was surely written after its arrival. Many are in an earlier one: a
//! heartbeat written in the middle of a drain counts servers whose arrival is not known here yet. For limits both counts are taken, and
//! nothing is exceeded. For balance that would make a node look fuller than it is, by up to what is in flight, at whatever moment its
//! heartbeat was written, and send its share to the others.
//!
//! Guarantee: an overlap is never more than what the ledger counts, and never less than what the report may have missed. Between
//! these, it is what leaves the projection as it was before the report: numbers that this drain explains change nothing, and of all others the
//! part that it cannot explain does.

use crate::ids::ModuleId;
use crate::view::{NodeView, Scope};

/// A number in a report that servers add to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The servers of the node.
    Servers,
    /// The `current` of the limit with that scope.
    Limited(Scope),
}

impl Count {
    /// The numbers of a report.
    pub fn of(report: &NodeView) -> impl Iterator<Item = (Count, f64)> {
        let servers = report.server_count().map(|servers| (Count::Servers, servers));
        servers
            .into_iter()
            .chain(report.capacity.iter().map(|capacity| (Count::Limited(capacity.scope), capacity.current)))
    }

    /// The module whose servers it counts, `None` for all.
    pub fn module(self) -> Option<ModuleId> {
        match self {
            Count::Limited(Scope::Module(module)) => Some(module),
            Count::Servers | Count::Limited(Scope::Total) => None,
        }
    }
}

/// How many of the `counted` are in `reported` already, if the projection was `before`. `missed`: how many the report may lack although
/// they are not counted here any more.
pub fn overlap(before: f64, reported: f64, counted: u32, missed: u32) -> f64 {
    (reported + f64::from(counted) - before).clamp(-f64::from(missed), f64::from(counted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_drain_explains_leaves_the_projection_as_it_was() {
        // 10 servers were reported and 6 sent since. 4 of these are in the next report, and their arrival is not known here yet.
        assert_eq!(overlap(16.0, 14.0, 6, 0), 4.0);
        // All have arrived and are in the report.
        assert_eq!(overlap(16.0, 16.0, 0, 6), 0.0);
        // They had arrived when the report was stamped, but after it had counted.
        assert_eq!(overlap(16.0, 13.0, 0, 3), -3.0);
    }

    #[test]
    fn what_it_cannot_explain_is_believed() {
        // Three more than all that were sent: they came from elsewhere.
        assert_eq!(16.0 + 3.0, 19.0 + 6.0 - overlap(16.0, 19.0, 6, 0));
        // Five fewer than before, and nothing was sent: they have stopped.
        assert_eq!(overlap(10.0, 5.0, 0, 0), 0.0);
    }
}
