//! Which targets there are, and what a drain does when there are none.

use handoff_core::time::Micros;
use handoff_core::{Blame, ClusterView, Config, Engine, NodeView, Outcome, Reason, Scope, Source};

use crate::common::{Drive, WALL, config, count, limit, node, servers, two_targets, view};

#[test]
fn a_drain_without_a_target_stops_no_server_and_ends_at_once() {
    let mut drive = Drive::new(config(), &servers(3), view(vec![node("source@h")]));
    assert!(drive.poll().is_empty());
    assert!(drive.finished);
    let report = drive.report();
    assert_eq!((report.attempts, report.duration), (0, Micros::ZERO));
    assert_eq!(report.left, [(Reason::NoTarget, 3)].into());
}

#[test]
fn a_drain_waits_for_a_first_target_as_long_as_configured() {
    let config = Config { wait_for_target_ms: 2_000, ..config() };
    let mut drive = Drive::new(config.clone(), &servers(3), view(vec![]));
    assert!(drive.poll().is_empty() && !drive.finished);
    assert_eq!(drive.wake, Some(drive.now + Micros::from_millis(2_000)));
    drive.later(1_500);
    drive.see(two_targets());
    assert_eq!(drive.poll().len(), 3);

    let mut drive = Drive::new(config, &servers(3), view(vec![]));
    drive.poll();
    drive.later(2_000);
    drive.poll();
    assert!(drive.finished, "no target came");
}

/// A cluster manager disconnects the terminating node in the middle of the drain.
#[test]
fn a_drain_that_loses_all_targets_stops_no_server_and_continues_when_one_returns() {
    let config = Config { wait_for_lost_ms: 5_000, max_concurrency: 2, ..config() };
    let mut drive = Drive::new(config.clone(), &servers(6), two_targets());
    let first = drive.poll();
    assert_eq!(first.len(), 2);
    for name in ["a@h", "b@h"] {
        drive.lose(name);
    }
    drive.moved(&first[0]);
    drive.finish(&first[1], Outcome::Untouched(Blame::Unknown));
    assert!(drive.poll().is_empty() && !drive.finished);
    drive.later(3_000);
    assert!(drive.poll().is_empty() && !drive.finished);
    drive.see(two_targets());
    assert_eq!(drive.move_all().len(), 5);
    assert!(drive.finished);

    // No target returns, so the running servers stay.
    let mut drive = Drive::new(config, &servers(6), two_targets());
    let first = drive.poll();
    first.iter().for_each(|attempt| drive.moved(attempt));
    for name in ["a@h", "b@h"] {
        drive.lose(name);
    }
    assert!(drive.poll().is_empty() && !drive.finished);
    assert_eq!(drive.wake, Some(drive.now + Micros::from_millis(5_000)));
    drive.later(5_000);
    drive.poll();
    assert!(drive.finished);
    assert_eq!(drive.report().left, [(Reason::NoTarget, 4)].into());
}

/// The nodes of a small cluster are replaced at the same time.
#[test]
fn all_targets_begin_to_drain_while_a_running_server_waits_for_its_next_attempt_so_it_waits_for_a_target() {
    let config = Config { wait_for_target_ms: 20_000, ..config() };
    let going = || view(["a@h", "b@h"].map(|name| NodeView { draining: true, ..node(name) }).into());
    // After the longer time it would be tried again, but its targets rest.
    for waited_ms in [0, 60] {
        let waiting = || {
            let mut drive = Drive::new(config.clone(), &servers(2), two_targets());
            for attempt in drive.poll() {
                drive.finish(&attempt, Outcome::Untouched(Blame::Target));
            }
            drive.later(waited_ms);
            assert!(drive.poll().is_empty());
            drive.see(going());
            drive.later(1_000);
            assert!(drive.poll().is_empty() && !drive.finished);
            drive
        };
        let mut drive = waiting();
        drive.see(two_targets());
        assert_eq!(drive.move_all().len(), 2);
        assert!(drive.finished);

        let mut drive = waiting();
        drive.now = drive.wake.expect("until then it waits");
        assert!(drive.poll().is_empty() && drive.finished, "no target came");
        assert_eq!(drive.report().left, [(Reason::NoTarget, 2)].into());
    }
}

#[test]
fn a_drain_does_not_wait_for_nodes_that_are_stopping_too() {
    let config = Config { wait_for_lost_ms: 5_000, ..config() };
    let going = |name| NodeView { draining: true, connected: false, ..node(name) };
    let mut drive = Drive::new(config, &servers(3), view(vec![going("a@h"), going("b@h")]));
    drive.poll();
    assert!(drive.finished);
}

#[test]
fn a_server_whose_target_is_lost_during_its_move_is_held_briefly_and_released_while_the_others_wait() {
    let config = Config { wait_for_lost_ms: 5_000, max_concurrency: 1, ..config() };
    let mut drive = Drive::new(config, &servers(3), view(vec![node("a@h")]));
    let first = drive.poll().remove(0);
    drive.lose("a@h");
    drive.finish(&first, Outcome::Displaced(Blame::Target));
    assert!(drive.poll().is_empty() && !drive.finished);
    assert!(drive.released.is_empty());
    drive.now = drive.wake.expect("until then it is held");
    assert!(drive.poll().is_empty() && !drive.finished);
    assert_eq!(drive.released, [first.id]);
    drive.acknowledge_releases();
    drive.see(view(vec![node("a@h")]));
    assert_eq!(drive.move_all().len(), 2);
    assert_eq!(drive.report().left, [(Reason::NoTarget, 1)].into());
}

#[test]
fn a_running_server_that_waits_for_its_target_to_take_another_attempt_does_not_count_as_displaced() {
    let config = Config { max_concurrency_per_target: Some(1), ..config() };
    let mut drive = Drive::new(config, &servers(3), view(vec![node("a@h")]));
    let first = drive.poll().remove(0);
    drive.finish(&first, Outcome::Untouched(Blame::Server));
    let second = drive.poll().remove(0);
    drive.now = drive.wake.expect("until its next attempt");
    assert!(drive.poll().is_empty(), "the target has its attempt");
    let counts = |drive: &Drive| {
        let progress = drive.engine.progress(&drive.shared);
        (progress.pending, progress.in_flight, progress.displaced)
    };
    assert_eq!(counts(&drive), (2, 1, 0));
    drive.finish(&second, Outcome::Displaced(Blame::Server));
    assert_eq!(counts(&drive), (2, 0, 1));
}

/// A whole cluster stops, or an old node of a rolling deploy leaves.
#[test]
fn a_stopped_server_is_not_held_for_a_node_that_was_stopping_when_it_was_lost() {
    let config = Config { wait_for_lost_ms: 5_000, ..config() };
    let mut drive = Drive::new(config, &servers(1), view(vec![node("a@h")]));
    let first = drive.poll().remove(0);
    drive.see(view(vec![NodeView { draining: true, ..node("a@h") }]));
    drive.lose("a@h");
    drive.finish(&first, Outcome::Displaced(Blame::Target));
    assert!(drive.poll().is_empty());
    assert_eq!(drive.released, [first.id]);
}

#[test]
fn a_refused_server_without_a_place_is_released_although_another_drain_has_all_permits() {
    for max_attempts in [1, 3] {
        let config = Config { max_concurrency: 1, max_attempts, ..config() };
        let mut drive = Drive::new(config, &servers(1), view(vec![node("a@h")]));
        let first = drive.poll().remove(0);
        drive.finish(&first, Outcome::Displaced(Blame::Target));
        let _of_the_other_drain = drive.shared.limiter.on_start(drive.now);
        assert!(drive.poll().is_empty());
        assert_eq!(drive.released, [first.id]);
    }
}

#[test]
fn one_dying_target_with_many_attempts_in_flight_does_not_end_the_drain() {
    let mut drive = Drive::new(config(), &servers(100), two_targets());
    let started = drive.poll();
    drive.later(10);
    drive.lose("a@h");
    for attempt in started.iter().filter(|attempt| attempt.target == "a@h") {
        drive.finish(attempt, Outcome::Displaced(Blame::Target));
    }
    for attempt in started.iter().filter(|attempt| attempt.target == "b@h") {
        drive.moved(attempt);
    }
    let rest = drive.move_all();
    assert_eq!(count(&rest, "b@h"), 75);
    assert!(drive.finished);
    assert_eq!(drive.report().moved, 100);
}

#[test]
fn a_node_that_appears_during_the_drain_is_used() {
    let mut drive = Drive::new(Config { max_concurrency: 10, ..config() }, &servers(100), view(vec![node("a@h")]));
    let first = drive.poll();
    drive.see(two_targets());
    first.iter().for_each(|attempt| drive.moved(attempt));
    let rest = drive.move_all();
    assert_eq!((count(&rest, "a@h"), count(&rest, "b@h")), (40, 50));
}

#[test]
fn a_server_waits_for_a_target_at_its_cap_rather_than_take_a_worse_node() {
    let fresh = NodeView { started_at_ms: Some(WALL - 1_000), ..node("fresh@h") };
    let config = Config { max_concurrency_per_target: Some(2), ..config() };
    let mut drive = Drive::new(config, &servers(10), view(vec![node("old@h"), fresh]));
    let started = drive.poll();
    assert_eq!((started.len(), count(&started, "fresh@h")), (2, 2));
    started.iter().for_each(|attempt| drive.moved(attempt));
    assert_eq!(count(&drive.move_all(), "fresh@h"), 8);
}

#[test]
fn a_displaced_server_takes_a_worse_node_rather_than_wait() {
    let fresh = NodeView { started_at_ms: Some(WALL - 1_000), ..node("fresh@h") };
    let mut drive = Drive::new(config(), &servers(1), view(vec![node("old@h"), fresh]));
    let first = drive.poll().remove(0);
    assert_eq!(first.target, "fresh@h");
    drive.finish(&first, Outcome::Displaced(Blame::Target));
    assert_eq!(drive.poll()[0].target, "old@h");
}

#[test]
fn two_drains_that_share_a_ledger_do_not_overload_the_same_target() {
    let mut first = Drive::new(config(), &servers(30), two_targets());
    let other = Config { source: Source { name: "other@h".into(), ..Default::default() }, ..config() };
    let mut second =
        Engine::new(other, &servers(10), view(vec![node("a@h")]), first.now, &mut first.shared).expect("valid");
    assert_eq!(second.poll(first.now, &mut first.shared).actions.len(), 10);
    let started = first.poll();
    assert_eq!((count(&started, "a@h"), count(&started, "b@h")), (10, 20));
}

#[test]
fn a_drain_with_an_older_view_projects_from_the_newest_report_of_all_drains() {
    let limited =
        |current, stamp_ms| NodeView { stamp_ms, capacity: vec![limit(Scope::Total, current, 2)], ..node("a@h") };
    let mut first = Drive::new(config(), &servers(5), view(vec![limited(0, WALL)]));
    let started = first.poll();
    assert_eq!(started.len(), 2);
    first.later(10);
    started.iter().for_each(|attempt| first.moved(attempt));
    let other = Config { source: Source { name: "other@h".into(), ..Default::default() }, ..config() };
    let newer = ClusterView { now_ms: WALL + 60, nodes: vec![limited(2, WALL + 50)] };
    Engine::new(other, &servers(1), newer, first.now, &mut first.shared).expect("valid");
    assert!(first.poll().is_empty(), "the two that arrived are in the report the other drain has seen");
}
