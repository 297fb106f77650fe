//! The servers that both a report and the ledger count.
//!
//! A server in flight counts in the ledger until a report that was certainly written after its arrival. Often
//! an earlier report includes it already: a heartbeat written during a drain counts servers whose arrival is
//! not known here yet. For limits both counts are added, so that no limit is exceeded. For balance the sum
//! would be too high, by up to the number in flight and depending on the moment of the heartbeat, and the
//! node's share would go to other nodes.
//!
//! Guarantee: an overlap never exceeds what the ledger counts, and is never less than what the report may
//! have missed. Within this range the projection changes only by the part of a report's difference that the
//! servers sent by this drain do not explain.

use crate::ids::ModuleId;
use crate::view::{NodeView, Scope};

/// A number in a report that depends on the number of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// All servers of the node.
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

    /// The module whose servers are counted; `None` for all modules.
    pub fn module(self) -> Option<ModuleId> {
        match self {
            Count::Limited(Scope::Module(module)) => Some(module),
            Count::Servers | Count::Limited(Scope::Total) => None,
        }
    }
}

/// How many of the `counted` servers are already in `reported`, if the projection was `before`. `missed` is
/// the number that the report may lack although they are no longer counted here.
pub fn overlap(before: f64, reported: f64, counted: u32, missed: u32) -> f64 {
    (reported + f64::from(counted) - before).clamp(-f64::from(missed), f64::from(counted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_the_drain_explains_keeps_the_projection() {
        // 10 servers were reported and 6 sent since then. The next report includes 4 of these, whose arrival
        // is not known here yet.
        assert_eq!(overlap(16.0, 14.0, 6, 0), 4.0);
        // All servers have arrived and are in the report.
        assert_eq!(overlap(16.0, 16.0, 0, 6), 0.0);
        // The servers had arrived when the report was stamped, but after its count.
        assert_eq!(overlap(16.0, 13.0, 0, 3), -3.0);
    }

    #[test]
    fn the_unexplained_part_of_a_report_changes_the_projection() {
        // The report has three servers more than were sent, so these came from other nodes.
        assert_eq!(16.0 + 3.0, 19.0 + 6.0 - overlap(16.0, 19.0, 6, 0));
        // Five servers fewer than before, and none was sent: they have stopped.
        assert_eq!(overlap(10.0, 5.0, 0, 0), 0.0);
    }
}
