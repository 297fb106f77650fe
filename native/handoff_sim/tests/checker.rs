//! The checker reports each kind of violation, so that a run without violations proves something.

use handoff_core::time::Micros;
use handoff_core::{Blame, Capacity, ClusterView, Config, NodeView, Outcome, Scope, Source};
use handoff_sim::checker::ledger::Ledger;
use handoff_sim::checker::{Checker, Rule};
use handoff_sim::cluster::WALL;

const NOW: Micros = Micros::from_millis(1_000);
const TIMEOUT: Micros = Micros::from_millis(100);

fn node(name: &str) -> NodeView {
    NodeView { name: name.into(), stamp_ms: WALL, connected: true, ..NodeView::default() }
}

/// A checker of ten servers that received one node, and the ledger for its limits.
fn shown(node: NodeView) -> (Checker, Ledger) {
    let config = Config {
        source: Source { name: "source@sim".into(), ..Source::default() },
        max_concurrency_per_target: Some(2),
        timeout_ms: 1_000,
        ..Config::default()
    };
    let mut checker = Checker::new(&config, vec![0; 10], NOW);
    let mut ledger = Ledger::new(1, 1);
    ledger.shown(0, NOW, &node);
    checker.shown(ClusterView { now_ms: WALL, nodes: vec![node] });
    (checker, ledger)
}

fn start(checker: &mut Checker, ledger: &Ledger, id: u32, attempt: u32) {
    checker.starts(NOW, (id, "a@sim", attempt, TIMEOUT), 0, 0, ledger, Micros::ZERO);
}

fn rules(checker: &Checker) -> Vec<Rule> {
    checker.broken.iter().map(|violation| violation.rule).collect()
}

#[test]
fn a_start_on_a_healthy_node_is_no_violation() {
    let (mut checker, ledger) = shown(node("a@sim"));
    start(&mut checker, &ledger, 0, 1);
    assert_eq!(rules(&checker), []);
}

#[test]
fn a_target_that_is_draining_lost_stale_or_unknown_is_reported() {
    for bad in [
        NodeView { draining: true, ..node("a@sim") },
        NodeView { connected: false, ..node("a@sim") },
        NodeView { stamp_ms: WALL - 50_001, ..node("a@sim") },
        node("b@sim"),
    ] {
        let (mut checker, ledger) = shown(bad.clone());
        start(&mut checker, &ledger, 0, 1);
        assert_eq!(rules(&checker), [Rule::Target], "{bad:?}");
    }
    let (mut checker, ledger) = shown(node("a@sim"));
    checker.told_lost("a@sim");
    start(&mut checker, &ledger, 0, 1);
    assert_eq!(rules(&checker), [Rule::Target]);
}

#[test]
fn a_server_above_a_limit_by_projection_is_reported() {
    let full = Capacity { scope: Scope::Total, current: 4.0, limit: 5.0 };
    let (mut checker, mut ledger) = shown(NodeView { capacity: vec![full], ..node("a@sim") });
    start(&mut checker, &ledger, 0, 1);
    ledger.start(0, 0);
    assert_eq!(rules(&checker), []);
    start(&mut checker, &ledger, 1, 1);
    assert_eq!(rules(&checker), [Rule::Limit]);
}

#[test]
fn a_server_that_arrived_before_the_heartbeat_was_written_is_not_counted_twice() {
    let full = Capacity { scope: Scope::Total, current: 4.0, limit: 5.0 };
    let (mut checker, mut ledger) = shown(NodeView { capacity: vec![full], ..node("a@sim") });
    ledger.arrive(0, 0, NOW - Micros(1));
    start(&mut checker, &ledger, 0, 1);
    assert_eq!(rules(&checker), []);
    ledger.arrive(0, 0, NOW + Micros(1));
    start(&mut checker, &ledger, 1, 1);
    assert_eq!(rules(&checker), [Rule::Limit]);
}

#[test]
fn attempts_to_one_target_above_its_cap_are_reported() {
    let (mut checker, ledger) = shown(node("a@sim"));
    (0..3).for_each(|id| start(&mut checker, &ledger, id, 1));
    assert_eq!(rules(&checker), [Rule::Ceiling]);
}

#[test]
fn a_start_of_a_server_in_flight_is_reported() {
    let (mut checker, ledger) = shown(node("a@sim"));
    start(&mut checker, &ledger, 0, 1);
    start(&mut checker, &ledger, 0, 2);
    assert_eq!(rules(&checker), [Rule::Protocol]);
}

#[test]
fn a_start_after_a_cancel_or_past_the_deadline_is_reported() {
    let (mut checker, ledger) = shown(node("a@sim"));
    checker.told_cancelled();
    start(&mut checker, &ledger, 0, 1);
    assert_eq!(rules(&checker), [Rule::Protocol]);
    let (mut checker, ledger) = shown(node("a@sim"));
    let late = NOW + Micros::from_millis(950);
    checker.starts(late, (0, "a@sim", 1, TIMEOUT), 0, 0, &ledger, Micros::ZERO);
    assert_eq!(rules(&checker), [Rule::Deadline]);
}

#[test]
fn a_release_of_a_server_that_was_never_stopped_is_reported() {
    let (mut checker, ledger) = shown(node("a@sim"));
    start(&mut checker, &ledger, 0, 1);
    checker.told_outcome(0, &Outcome::Displaced(Blame::Target));
    checker.releases(NOW, 0);
    assert_eq!(rules(&checker), []);
    checker.releases(NOW, 1);
    assert_eq!(rules(&checker), [Rule::Displaced]);
}
