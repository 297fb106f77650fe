//! What a fault promises beyond the checks that run after every fault. Pure.

use crate::beam::events::Drained;
use crate::report::ModeReport;

/// A promise of one fault, a part of what it says under *Then*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No server is moved to the node that the fault calls its target.
    SparesTarget,
    /// No server is moved at all.
    MovesNone,
    /// The Rust node decides in every drain, from its beginning to its end.
    RustNodeDecides,
    /// The Rust node begins to decide, and the source's own engine goes on without it.
    LosesRustNode,
}

impl Expected {
    /// Why the promise was broken, if it was. `target`: the label of the fault's target; `drained`: the ends of all
    /// drains.
    pub fn broken(self, figures: &ModeReport, target: &str, drained: &[&Drained]) -> Option<String> {
        match self {
            Self::SparesTarget => {
                let moved = figures.targets.get(target).copied().unwrap_or(0);
                (moved > 0).then(|| format!("{moved} servers were moved to {target}"))
            }
            Self::MovesNone => (figures.moved > 0).then(|| format!("{} servers were moved", figures.moved)),
            Self::RustNodeDecides => {
                let decides = |end: &&Drained| end.executor == "node" && end.lost == 0;
                unless(!drained.is_empty() && drained.iter().all(decides), "the Rust node did not decide until the end")
            }
            Self::LosesRustNode => {
                let goes_on = |end: &&Drained| end.executor == "embedded" && end.lost > 0;
                unless(drained.iter().any(goes_on), "no drain began with the Rust node and ended without it")
            }
        }
    }
}

fn unless(kept: bool, broken: &str) -> Option<String> {
    (!kept).then(|| broken.to_owned())
}

/// Why a fault that waits for a drain to come so far has shown nothing: the drain had ended by then.
pub fn missed(reached_us: Option<u64>, ended_us: Option<u64>) -> Option<String> {
    let late_us = reached_us?.checked_sub(ended_us?)?;
    Some(format!("the fault came {} ms after the end of the drain", late_us / 1_000))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn end(executor: &str, lost: u64) -> Drained {
        let (executor, ended) = (executor.to_owned(), "done".to_owned());
        Drained { at_us: 7, executor, moved: 120, total: 120, ended, not_stored: 0, lost }
    }

    fn broken(expected: Expected, figures: &ModeReport, drained: &[&Drained]) -> bool {
        expected.broken(figures, "node3", drained).is_some()
    }

    #[test]
    fn a_server_on_the_spared_target_is_a_problem() {
        let targets = |there| BTreeMap::from([("node2".to_owned(), 119), ("node3".to_owned(), there)]);
        let figures = |there| ModeReport { targets: targets(there), ..ModeReport::default() };
        let [some, none] = [1, 0].map(|there| broken(Expected::SparesTarget, &figures(there), &[]));
        assert!(some && !none && !broken(Expected::SparesTarget, &ModeReport::default(), &[]));
    }

    #[test]
    fn a_moved_server_is_a_problem_where_none_may_move() {
        let [some, none] = [1, 0].map(|moved| ModeReport { moved, ..ModeReport::default() });
        assert!(broken(Expected::MovesNone, &some, &[]) && !broken(Expected::MovesNone, &none, &[]));
    }

    #[test]
    fn a_rust_node_that_was_never_asked_is_a_problem_whether_it_should_be_lost_or_not() {
        let (node, own, taken_over) = (end("node", 0), end("embedded", 0), end("embedded", 1));
        let of = |expected, drained: &[&Drained]| broken(expected, &ModeReport::default(), drained);
        for ends in [&[][..], &[&own], &[&taken_over], &[&node, &own]] {
            assert!(of(Expected::RustNodeDecides, ends), "{ends:?}");
        }
        assert!(!of(Expected::RustNodeDecides, &[&node, &node]));
        for ends in [&[][..], &[&own], &[&node]] {
            assert!(of(Expected::LosesRustNode, ends), "{ends:?}");
        }
        assert!(!of(Expected::LosesRustNode, &[&taken_over]));
    }

    #[test]
    fn a_fault_after_the_end_of_the_drain_has_missed_it() {
        assert_eq!(missed(Some(150_000), Some(120_000)).unwrap(), "the fault came 30 ms after the end of the drain");
        // It waited for nothing; the drain ended later; the node was killed during its drain.
        assert_eq!([missed(None, Some(1)), missed(Some(1), Some(2)), missed(Some(1), None)], [None, None, None]);
    }
}
