//! The result of a rebalance, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use handoff_core::report::Balance;
use handoff_core::{Idle, Reason, Report};
use handoff_wire::PlanSummary;
use serde::Serialize;

use super::choice::Asked;
use crate::commands::agent::NoAnswer;
use crate::commands::columns::columns;
use crate::commands::exit::Exit;

pub(super) type OfNode = Result<Moves, NoAnswer>;

/// What one node moved, or would move in a dry run.
#[derive(Debug, Default)]
pub(super) struct Moves {
    moved: u64,
    left: BTreeMap<&'static str, u64>,
    targets: BTreeMap<String, u64>,
    /// Why the node moved nothing, or stopped before its excess was moved.
    idle: Option<&'static str>,
}

impl Moves {
    pub(super) fn of_plan(plan: PlanSummary) -> Moves {
        Moves::new(plan.moves, plan.left, plan.targets, plan.balance)
    }

    pub(super) fn of_report(report: Report) -> Moves {
        Moves::new(report.moved, report.left, report.targets, report.balance)
    }

    fn new(
        moved: u64,
        left: BTreeMap<Reason, u64>,
        targets: BTreeMap<Arc<str>, u64>,
        balance: Option<Balance>,
    ) -> Moves {
        let to_move = balance.as_ref().map_or(u64::MAX, |balance| balance.to_move(&left));
        let idle = balance.and_then(|balance| balance.idle).map(Idle::name);
        Moves { moved, left: missing(left, to_move.saturating_sub(moved)), targets: names(targets), idle }
    }
}

/// The servers that should have moved and did not, by reason. Servers that arrived recently count up to the
/// excess of the node.
fn missing(left: BTreeMap<Reason, u64>, excess: u64) -> BTreeMap<&'static str, u64> {
    let counts = left.into_iter().map(|(reason, count)| match reason {
        Reason::MovedLately => (reason.name(), count.min(excess)),
        _ if reason.was_to_move() => (reason.name(), count),
        _ => (reason.name(), 0),
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

fn names(targets: BTreeMap<Arc<str>, u64>) -> BTreeMap<String, u64> {
    targets.into_iter().map(|(name, count)| (name.to_string(), count)).collect()
}

#[derive(Debug, Serialize)]
pub(super) struct Rebalanced {
    supervisor: String,
    dry_run: bool,
    moved: u64,
    nodes: Vec<NodeRow>,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    node: String,
    /// The number of servers when the node was asked, if the node has described itself.
    before: Option<u64>,
    moved: u64,
    /// The number of servers after the rebalance, if no other server starts or ends.
    after: Option<u64>,
    left: BTreeMap<&'static str, u64>,
    targets: BTreeMap<String, u64>,
    idle: Option<&'static str>,
    error: Option<String>,
}

impl Rebalanced {
    pub(super) fn new(
        supervisor: String,
        dry_run: bool,
        asked: &[Asked],
        mut answers: BTreeMap<String, OfNode>,
    ) -> Rebalanced {
        let mut exit = Exit::Done;
        let rows = asked.iter().map(|Asked { name, servers, .. }| {
            let lost = || Err(NoAnswer::Lost("asking it failed".to_owned()));
            let answer = answers.remove(name).unwrap_or_else(lost);
            let (moves, error, of_node) = match answer {
                Ok(moves) => {
                    let of_node = if moves.left.is_empty() && !stopped(moves.idle) { Exit::Done } else { Exit::Left };
                    (moves, None, of_node)
                }
                Err(why) => (Moves::default(), Some(why.text().to_owned()), why.exit()),
            };
            exit = exit.worse(of_node);
            let Moves { moved, left, targets, idle } = moves;
            NodeRow { node: name.clone(), before: *servers, moved, after: None, left, targets, idle, error }
        });
        let mut nodes: Vec<NodeRow> = rows.collect();
        let mut received: BTreeMap<String, u64> = BTreeMap::new();
        for (name, count) in nodes.iter().flat_map(|row| &row.targets) {
            let came = received.entry(name.clone()).or_default();
            *came = came.saturating_add(*count);
        }
        for row in &mut nodes {
            let came = received.get(&row.node).copied().unwrap_or(0);
            row.after = row.before.map(|before| before.saturating_sub(row.moved).saturating_add(came));
        }
        let moved = nodes.iter().fold(0, |moved: u64, row| moved.saturating_add(row.moved));
        Rebalanced { supervisor, dry_run, moved, nodes, exit }
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }
}

/// Whether the node moved less than its excess because it was `idle`.
fn stopped(idle: Option<&str>) -> bool {
    idle.is_some_and(|idle| !["within_tolerance", "too_few_servers"].contains(&idle))
}

impl fmt::Display for Rebalanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rebalanced { supervisor, moved, .. } = self;
        let what = if self.dry_run { "would move" } else { "moved" };
        writeln!(f, "{supervisor}: {moved} servers {what}")?;
        let mut rows = vec![["NODE", "SERVERS", "MOVED", "AFTER", "NOTE"].map(str::to_owned)];
        for row in &self.nodes {
            let left = row.left.iter().map(|(reason, count)| format!("left: {reason} {count}"));
            let notes: Vec<String> = row.error.iter().cloned().chain(row.idle.map(str::to_owned)).chain(left).collect();
            let known = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let [before, moved, after] = [row.before, Some(row.moved), row.after].map(known);
            rows.push([row.node.clone(), before, moved, after, notes.join(", ")]);
        }
        f.write_str(&columns(&rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, servers: u64) -> Asked {
        Asked { name: name.to_owned(), servers: Some(servers), error: None }
    }

    fn moves(count: u64, to: &str) -> Moves {
        Moves { moved: count, targets: BTreeMap::from([(to.to_owned(), count)]), ..Moves::default() }
    }

    #[test]
    fn the_sum_shows_the_number_of_servers_of_each_node_afterwards() {
        let nodes = [asked("a@h", 60), asked("b@h", 50), asked("c@h", 10)];
        let idle = Moves { idle: Some("within_tolerance"), ..Moves::default() };
        let answers = BTreeMap::from([
            ("a@h".to_owned(), Ok(moves(20, "c@h"))),
            ("b@h".to_owned(), Ok(moves(10, "c@h"))),
            ("c@h".to_owned(), Ok(idle)),
        ]);
        let rebalanced = Rebalanced::new("Sup".to_owned(), true, &nodes, answers);
        let expected = "\
Sup: 30 servers would move
NODE  SERVERS  MOVED  AFTER  NOTE
a@h   60       20     40
b@h   50       10     40
c@h   10       0      40     within_tolerance
";
        assert_eq!((rebalanced.to_string().as_str(), rebalanced.exit()), (expected, Exit::Done));
    }

    #[test]
    fn a_node_that_does_not_answer_is_listed_with_the_reason_and_sets_the_exit_code() {
        let nodes = [asked("a@h", 9), asked("b@h", 1), asked("c@h", 1)];
        let left = Moves { left: BTreeMap::from([("no_target", 3)]), ..Moves::default() };
        let refused = Err(NoAnswer::Refused("it drains".to_owned()));
        let answers = BTreeMap::from([("a@h".to_owned(), Ok(left)), ("b@h".to_owned(), refused)]);
        let rebalanced = Rebalanced::new("Sup".to_owned(), false, &nodes, answers);
        let text = rebalanced.to_string();
        for expected in ["left: no_target 3", "it drains", "asking it failed"] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(rebalanced.exit(), Exit::Lost);
    }

    #[test]
    fn inconsistent_numbers_of_nodes_are_added_without_overflow() {
        let nodes = [asked("a@h", u64::MAX), asked("b@h", u64::MAX), asked("c@h", u64::MAX)];
        let answers = BTreeMap::from([
            ("a@h".to_owned(), Ok(moves(u64::MAX, "c@h"))),
            ("b@h".to_owned(), Ok(moves(u64::MAX, "c@h"))),
            ("c@h".to_owned(), Ok(Moves::default())),
        ]);
        let rebalanced = Rebalanced::new("Sup".to_owned(), false, &nodes, answers);
        assert_eq!(
            (rebalanced.moved, rebalanced.nodes[2].after, rebalanced.nodes[0].after),
            (u64::MAX, Some(u64::MAX), Some(0))
        );
    }

    #[test]
    fn servers_that_a_rebalance_keeps_do_not_count_as_left() {
        let all = || BTreeMap::from([(Reason::Kept, 40), (Reason::NoTarget, 2), (Reason::MovedLately, 9)]);
        assert_eq!(missing(all(), 0), BTreeMap::from([("no_target", 2)]));
        assert_eq!(missing(all(), 5)["moved_lately"], 5, "of those that are too many");
    }

    #[test]
    fn a_server_that_ended_by_itself_is_no_longer_above_the_share() {
        let left = BTreeMap::from([(Reason::Gone, 1), (Reason::MovedLately, 3)]);
        let balance = Balance { idle: None, excess: 5, before: vec![], after: vec![] };
        assert!(Moves::new(4, left, BTreeMap::new(), Some(balance)).left.is_empty());
    }
}
