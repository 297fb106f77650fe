//! The judge itself: each kind of broken promise is noticed, so that a clean run says something.

use handoff_core::time::Micros;
use handoff_core::{Blame, Capacity, ClusterView, Config, NodeView, Outcome, Scope, Source};
use handoff_sim::cluster::WALL;
use handoff_sim::judge::books::Books;
use handoff_sim::judge::{Judge, Rule};

const NOW: Micros = Micros::from_millis(1_000);
const TIMEOUT: Micros = Micros::from_millis(100);

fn node(name: &str) -> NodeView {
    NodeView { name: name.into(), stamp_ms: WALL, connected: true, ..NodeView::default() }
}

/// A judge of ten servers that was shown one node, and the books it looks limits up in.
fn shown(node: NodeView) -> (Judge, Books) {
    let config = Config {
        source: Source { name: "source@sim".into(), ..Source::default() },
        max_concurrency_per_target: Some(2),
        timeout_ms: 1_000,
        ..Config::default()
    };
    let mut judge = Judge::new(&config, vec![0; 10], NOW);
    let mut books = Books::new(1, 1);
    books.shown(0, NOW, &node);
    judge.shown(ClusterView { now_ms: WALL, nodes: vec![node] });
    (judge, books)
}

fn start(judge: &mut Judge, books: &Books, id: u32, attempt: u32) {
    judge.starts(NOW, (id, "a@sim", attempt, TIMEOUT), 0, 0, books, Micros::ZERO);
}

fn rules(judge: &Judge) -> Vec<Rule> {
    judge.broken.iter().map(|violation| violation.rule).collect()
}

#[test]
fn a_start_on_a_healthy_node_breaks_nothing() {
    let (mut judge, books) = shown(node("a@sim"));
    start(&mut judge, &books, 0, 1);
    assert_eq!(rules(&judge), []);
}

#[test]
fn a_target_that_is_draining_lost_stale_or_unknown_is_noticed() {
    for bad in [
        NodeView { draining: true, ..node("a@sim") },
        NodeView { connected: false, ..node("a@sim") },
        NodeView { stamp_ms: WALL - 50_001, ..node("a@sim") },
        node("b@sim"),
    ] {
        let (mut judge, books) = shown(bad.clone());
        start(&mut judge, &books, 0, 1);
        assert_eq!(rules(&judge), [Rule::Target], "{bad:?}");
    }
    let (mut judge, books) = shown(node("a@sim"));
    judge.told_lost("a@sim");
    start(&mut judge, &books, 0, 1);
    assert_eq!(rules(&judge), [Rule::Target]);
}

#[test]
fn one_more_than_a_limit_by_projection_is_noticed() {
    let full = Capacity { scope: Scope::Total, current: 4.0, limit: 5.0 };
    let (mut judge, mut books) = shown(NodeView { capacity: vec![full], ..node("a@sim") });
    start(&mut judge, &books, 0, 1);
    books.start(0, 0);
    assert_eq!(rules(&judge), []);
    start(&mut judge, &books, 1, 1);
    assert_eq!(rules(&judge), [Rule::Limit]);
}

#[test]
fn a_server_that_arrived_before_the_heartbeat_was_written_is_not_counted_twice() {
    let full = Capacity { scope: Scope::Total, current: 4.0, limit: 5.0 };
    let (mut judge, mut books) = shown(NodeView { capacity: vec![full], ..node("a@sim") });
    books.arrive(0, 0, NOW - Micros(1));
    start(&mut judge, &books, 0, 1);
    assert_eq!(rules(&judge), []);
    books.arrive(0, 0, NOW + Micros(1));
    start(&mut judge, &books, 1, 1);
    assert_eq!(rules(&judge), [Rule::Limit]);
}

#[test]
fn more_towards_one_target_than_its_cap_is_noticed() {
    let (mut judge, books) = shown(node("a@sim"));
    (0..3).for_each(|id| start(&mut judge, &books, id, 1));
    assert_eq!(rules(&judge), [Rule::Ceiling]);
}

#[test]
fn a_server_that_is_started_while_it_is_in_flight_is_noticed() {
    let (mut judge, books) = shown(node("a@sim"));
    start(&mut judge, &books, 0, 1);
    start(&mut judge, &books, 0, 2);
    assert_eq!(rules(&judge), [Rule::Protocol]);
}

#[test]
fn a_start_after_cancelling_or_past_the_deadline_is_noticed() {
    let (mut judge, books) = shown(node("a@sim"));
    judge.told_cancelled();
    start(&mut judge, &books, 0, 1);
    assert_eq!(rules(&judge), [Rule::Protocol]);
    let (mut judge, books) = shown(node("a@sim"));
    let late = NOW + Micros::from_millis(950);
    judge.starts(late, (0, "a@sim", 1, TIMEOUT), 0, 0, &books, Micros::ZERO);
    assert_eq!(rules(&judge), [Rule::Deadline]);
}

#[test]
fn a_release_of_a_server_that_was_never_stopped_is_noticed() {
    let (mut judge, books) = shown(node("a@sim"));
    start(&mut judge, &books, 0, 1);
    judge.told_outcome(0, &Outcome::Displaced(Blame::Target));
    judge.releases(NOW, 0);
    assert_eq!(rules(&judge), []);
    judge.releases(NOW, 1);
    assert_eq!(rules(&judge), [Rule::Displaced]);
}
