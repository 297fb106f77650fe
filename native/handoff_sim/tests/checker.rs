//! The checker reports each kind of violation, so that a run without violations proves something.

use handoff_core::time::Micros;
use handoff_core::{
    Blame, Capacity, ClusterView, Config, Engine, ModuleId, NodeView, Outcome, Poll, Report, Scope, ServerSpec, Shared,
    Source, StickyId,
};
use handoff_sim::Outcome as RunOutcome;
use handoff_sim::check::Family;
use handoff_sim::checker::ledger::Ledger;
use handoff_sim::checker::{Checker, Rule};
use handoff_sim::cluster::WALL;
use handoff_sim::rebalance::{self, Kind};
use handoff_sim::servers::Server;

const NOW: Micros = Micros::from_millis(1_000);
const TIMEOUT: Micros = Micros::from_millis(100);

fn node(name: &str) -> NodeView {
    NodeView { name: name.into(), stamp_ms: WALL, connected: true, ..NodeView::default() }
}

fn config() -> Config {
    Config {
        source: Source { name: "source@sim".into(), ..Source::default() },
        max_concurrency: 3,
        max_concurrency_per_target: Some(2),
        timeout_ms: 1_000,
        ..Config::default()
    }
}

/// A checker of ten servers that received one node, and the ledger for its limits.
fn shown(node: NodeView) -> (Checker, Ledger) {
    let mut checker = Checker::new(&config(), vec![0; 10], NOW);
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

/// An engine that has done nothing with the ten servers.
fn idle_engine() -> (Engine, Shared) {
    let mut shared = Shared::new(&config());
    let server = ServerSpec { module: ModuleId(0), sticky: StickyId(0), priority: 0 };
    let view = ClusterView { now_ms: WALL, nodes: vec![node("a@sim")] };
    let engine = Engine::new(config(), &[server; 10], view, NOW, &mut shared).expect("valid");
    (engine, shared)
}

fn polled(checker: &mut Checker, wake: Option<Micros>) {
    let (engine, shared) = idle_engine();
    checker.polled(NOW, &Poll { actions: Vec::new(), wake }, &engine, &shared);
}

/// Whatever takes them down: in flight, stopped without a place, or asked to stop.
#[test]
fn more_servers_down_than_the_ceiling_are_reported() {
    let (mut checker, ledger) = shown(node("a@sim"));
    start(&mut checker, &ledger, 0, 1);
    checker.told_outcome(0, &Outcome::Displaced(Blame::Target));
    start(&mut checker, &ledger, 1, 1);
    checker.told_outcome(1, &Outcome::Stopping);
    start(&mut checker, &ledger, 2, 1);
    polled(&mut checker, Some(NOW + TIMEOUT));
    assert_eq!(rules(&checker), []);
    start(&mut checker, &ledger, 3, 1);
    polled(&mut checker, Some(NOW + TIMEOUT));
    assert_eq!(rules(&checker), [Rule::Ceiling]);
}

#[test]
fn a_wake_up_that_is_not_in_the_future_or_missing_is_reported() {
    for wake in [Some(NOW), None] {
        let (mut checker, _ledger) = shown(node("a@sim"));
        polled(&mut checker, wake);
        assert_eq!(rules(&checker), [Rule::Protocol], "{wake:?}");
    }
}

#[test]
fn an_end_after_the_deadline_with_a_server_down_and_results_that_do_not_add_up_is_reported() {
    let (mut checker, ledger) = shown(node("a@sim"));
    start(&mut checker, &ledger, 0, 1);
    checker.told_outcome(0, &Outcome::Displaced(Blame::Target));
    let (engine, shared) = idle_engine();
    let (late, stopped) = (NOW + Micros::from_millis(1_001), Server::default());
    checker.finished(late, &engine, &shared, |_| &stopped, (0, 1));
    for rule in [Rule::Deadline, Rule::Displaced, Rule::Counters] {
        assert!(rules(&checker).contains(&rule), "no {rule:?} in {:?}", checker.broken);
    }
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

/// Whether the rounds of that kind of scenario are reported once `change` has changed their result. Before
/// that, nothing may be reported.
fn reported(kind: Kind, change: fn(&mut RunOutcome)) -> bool {
    let seeds = (0..10_000).filter(|seed| Kind::of(*seed) == kind);
    let mut runs = seeds.map(|seed| (seed, Family::Rebalances.run(seed, handoff_sim::run)));
    // So many on each node that one more or less is within the tolerance.
    let many = |outcome: &RunOutcome| outcome.loads.iter().all(|load| *load == 0 || *load > 60);
    let moves = |(_, outcome): &(u64, RunOutcome)| outcome.moved() > 20 && many(outcome);
    let (seed, mut outcome) = runs.find(moves).expect("servers move in some of them");
    assert_eq!(outcome.broken, [], "seed {seed}");
    change(&mut outcome);
    !rebalance::broken(&rebalance::scenario(seed), &outcome).is_empty()
}

/// The report of the last drain of a run.
fn last(outcome: &mut RunOutcome) -> &mut Report {
    outcome.drains.last_mut().and_then(|drain| drain.report.as_mut()).expect("the engine decided")
}

#[test]
fn rounds_that_move_more_than_the_excess_move_again_or_leave_nodes_uneven_are_reported() {
    for kind in [Kind::Exact, Kind::Noisy, Kind::Stale, Kind::InPlace, Kind::ScaleIn, Kind::ScaleOut] {
        assert!(reported(kind, |outcome| last(outcome).moved = 1_000), "{kind:?}: more than the excess");
        assert!(reported(kind, |outcome| last(outcome).moved = 1), "{kind:?}: again, without need");
        let more = |outcome: &mut RunOutcome| *outcome.loads.iter_mut().max().expect("nodes") += 100;
        assert!(reported(kind, more), "{kind:?}: uneven");
    }
}
