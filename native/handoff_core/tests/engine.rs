//! The engine's decisions, with and without failures.

mod common;

use common::{Drive, WALL, config, count, node, servers, view};
use handoff_core::time::Micros;
use handoff_core::{
    Blame, ClusterView, Config, Ended, EngineError, Event, ModuleId, NodeView, Outcome, Reason, ServerId, ServerSpec,
    StickyId,
};

fn two_targets() -> ClusterView {
    view(vec![node("a@h"), node("b@h")])
}

#[test]
fn all_servers_move_and_the_report_adds_up() {
    let mut drive = Drive::new(config(), &servers(200), two_targets());
    assert_eq!(drive.move_all().len(), 200);
    let report = drive.report();
    assert!(drive.finished);
    assert_eq!((report.total, report.moved, report.retried, report.failures), (200, 200, 0, 0));
    assert_eq!(report.ended, Some(Ended::Done));
    assert_eq!(report.concurrency.highest, 50);
    assert_eq!(report.gap.max, 10_000);
    assert_eq!(drive.engine.results(), vec![0; 200]);
}

#[test]
fn servers_move_by_priority_then_in_the_given_order() {
    let spec = |priority| ServerSpec { module: ModuleId(0), sticky: StickyId(0), priority };
    let specs = [spec(0), spec(5), spec(0), spec(9)];
    let mut drive = Drive::new(Config { max_concurrency: 3, ..config() }, &specs, two_targets());
    let order: Vec<u32> = drive.poll().iter().map(|attempt| attempt.id).collect();
    assert_eq!(order, [3, 1, 0]);
}

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
    drive.event(Event::View(two_targets())).expect("valid");
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
        drive.event(Event::NodeDown(name.into())).expect("known");
    }
    drive.moved(&first[0]);
    drive.finish(&first[1], Outcome::Untouched(Blame::Unknown));
    assert!(drive.poll().is_empty() && !drive.finished);
    drive.later(3_000);
    assert!(drive.poll().is_empty() && !drive.finished);
    drive.event(Event::View(two_targets())).expect("valid");
    assert_eq!(drive.move_all().len(), 5);
    assert!(drive.finished);

    // No target returns, so the running servers stay.
    let mut drive = Drive::new(config, &servers(6), two_targets());
    let first = drive.poll();
    first.iter().for_each(|attempt| drive.moved(attempt));
    for name in ["a@h", "b@h"] {
        drive.event(Event::NodeDown(name.into())).expect("known");
    }
    assert!(drive.poll().is_empty() && !drive.finished);
    assert_eq!(drive.wake, Some(drive.now + Micros::from_millis(5_000)));
    drive.later(5_000);
    drive.poll();
    assert!(drive.finished);
    assert_eq!(drive.report().left, [(Reason::NoTarget, 4)].into());
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
    drive.event(Event::NodeDown("a@h".into())).expect("known");
    drive.finish(&first, Outcome::Displaced(Blame::Target));
    assert!(drive.poll().is_empty() && !drive.finished);
    assert!(drive.released.is_empty());
    drive.now = drive.wake.expect("until then it is held");
    assert!(drive.poll().is_empty() && !drive.finished);
    assert_eq!(drive.released, [first.id]);
    drive.acknowledge_releases();
    drive.event(Event::View(view(vec![node("a@h")]))).expect("valid");
    assert_eq!(drive.move_all().len(), 2);
    assert_eq!(drive.report().left, [(Reason::NoTarget, 1)].into());
}

#[test]
fn a_refused_server_goes_to_another_target_before_any_other_server_starts() {
    let mut drive = Drive::new(Config { max_concurrency: 1, ..config() }, &servers(5), two_targets());
    let first = drive.poll().remove(0);
    assert_eq!((first.id, first.target.as_str()), (0, "a@h"));
    drive.finish(&first, Outcome::Displaced(Blame::Target));
    let second = drive.poll();
    assert_eq!((second[0].id, second[0].target.as_str(), second[0].attempt), (0, "b@h", 2));
    assert_eq!(second.len(), 1);
    drive.moved(&second[0]);
    assert_eq!(drive.poll()[0].target, "b@h", "a@h rests");
    assert_eq!(drive.report().retried, 1);
}

#[test]
fn a_server_refused_by_every_target_is_released_and_reported() {
    let mut drive = Drive::new(config(), &servers(1), two_targets());
    for _ in 0..2 {
        let attempt = drive.poll().remove(0);
        drive.finish(&attempt, Outcome::Displaced(Blame::Target));
    }
    assert!(drive.poll().is_empty());
    assert_eq!(drive.released, [0]);
    assert!(!drive.finished, "the reservation is not cleared yet");
    drive.acknowledge_releases();
    drive.poll();
    assert!(drive.finished);
    assert_eq!(drive.report().left, [(Reason::AttemptsExhausted, 1)].into());
}

#[test]
fn attempts_are_counted_per_server() {
    let nodes = view((0..6).map(|index| node(&format!("n{index}@h"))).collect());
    let mut drive = Drive::new(Config { max_attempts: 3, ..config() }, &servers(1), nodes);
    for _ in 0..3 {
        let attempt = drive.poll().remove(0);
        drive.finish(&attempt, Outcome::Displaced(Blame::Server));
    }
    assert!(drive.poll().is_empty());
    assert_eq!(drive.released, [0]);
}

#[test]
fn a_target_whose_registry_lags_is_tried_again_soon_without_charge() {
    let mut drive = Drive::new(Config { max_attempts: 1, ..config() }, &servers(1), two_targets());
    let first = drive.poll().remove(0);
    drive.finish(&first, Outcome::RetrySame);
    assert!(drive.poll().is_empty());
    assert_eq!(drive.wake, Some(drive.now + Micros::from_millis(20)));
    drive.later(20);
    let again = drive.poll().remove(0);
    assert_eq!((&again.target, again.attempt), (&first.target, 2));
    drive.moved(&again);
    drive.poll();
    assert_eq!(drive.report().moved, 1);
}

#[test]
fn a_server_whose_target_lags_keeps_its_slot_there() {
    let with_room_for_one =
        |name| NodeView { capacity: vec![common::limit(handoff_core::Scope::Total, 0, 1)], ..node(name) };
    let two_rooms = view(vec![with_room_for_one("a@h"), with_room_for_one("b@h")]);
    let mut drive = Drive::new(Config { max_concurrency: 2, ..config() }, &servers(3), two_rooms);
    let started = drive.poll();
    drive.finish(&started[0], Outcome::RetrySame);
    drive.moved(&started[1]);
    assert!(drive.poll().is_empty(), "the third server has room at neither");
    drive.later(20);
    let again = drive.poll().remove(0);
    assert_eq!((again.id, &again.target), (started[0].id, &started[0].target));
    drive.moved(&again);
    drive.poll();
    assert_eq!(drive.report().left, [(Reason::Capacity, 1)].into());
}

#[test]
fn reserved_slots_are_released_when_another_engine_continues_the_drain() {
    let mut drive = Drive::new(Config { max_concurrency: 2, ..config() }, &servers(2), view(vec![node("a@h")]));
    let started = drive.poll();
    drive.finish(&started[0], Outcome::RetrySame);
    let target = drive.shared.names.get("a@h").expect("a known node");
    assert_eq!((drive.shared.ledger.assigned(target), drive.shared.ledger.in_flight(target)), (2, 1));
    drive.engine.give_up_places(&mut drive.shared);
    assert_eq!((drive.shared.ledger.assigned(target), drive.shared.ledger.in_flight(target)), (1, 1));
}

#[test]
fn servers_whose_targets_lag_do_not_unbalance_the_others() {
    let mut drive = Drive::new(Config { max_concurrency: 20, ..config() }, &servers(30), two_targets());
    let mut targets = Vec::new();
    let mut lagged = Vec::new();
    while !drive.finished {
        for attempt in drive.poll() {
            // For the first ten servers that go to a@h, the registry there lags.
            if attempt.target == "a@h" && attempt.attempt == 1 && lagged.len() < 10 {
                lagged.push(attempt.id);
                drive.finish(&attempt, Outcome::RetrySame);
            } else {
                targets.push(attempt.target.clone());
                drive.moved(&attempt);
            }
        }
        drive.later(5);
    }
    assert_eq!(lagged.len(), 10);
    assert_eq!(targets.iter().filter(|target| *target == "a@h").count(), 15);
    assert_eq!(targets.len(), 30);
}

#[test]
fn a_target_whose_registry_keeps_lagging_is_given_up() {
    let mut drive = Drive::new(config(), &servers(1), two_targets());
    let mut targets = Vec::new();
    for _ in 0..10 {
        let attempt = drive.poll().remove(0);
        targets.push(attempt.target.clone());
        drive.finish(&attempt, Outcome::RetrySame);
        drive.later(100);
    }
    assert_eq!(targets.iter().filter(|target| *target == "a@h").count(), 9);
    assert_eq!(targets[9], "b@h");
}

#[test]
fn a_server_whose_stop_hangs_does_not_block_the_others() {
    let mut drive = Drive::new(Config { max_concurrency: 2, ..config() }, &servers(4), two_targets());
    let started = drive.poll();
    drive.finish(&started[0], Outcome::Stopping);
    drive.moved(&started[1]);
    let rest = drive.poll();
    assert_eq!(rest.len(), 1, "one at a time now: the hung one does not answer either");
    drive.moved(&rest[0]);
    assert_eq!(drive.move_all().len(), 1);
    assert!(!drive.finished, "the hung one may still come down");
    drive.event(Event::Stopped { id: ServerId(started[0].id) }).expect("it was stopping");
    assert_eq!(drive.move_all().len(), 1);
    assert!(drive.finished);
    assert_eq!(drive.report().moved, 4);
}

#[test]
fn a_server_that_never_stops_is_decided_at_the_deadline() {
    let mut drive = Drive::new(config(), &servers(1), two_targets());
    let hung = drive.poll().remove(0);
    drive.finish(&hung, Outcome::Stopping);
    drive.later(29_999);
    drive.poll();
    assert!(!drive.finished);
    drive.later(1);
    drive.poll();
    assert!(drive.finished);
    let report = drive.report();
    assert_eq!((report.left, report.ended), ([(Reason::Deadline, 1)].into(), Some(Ended::Deadline)));
}

#[test]
fn a_server_that_a_client_starts_elsewhere_counts_as_moved_there() {
    let mut drive = Drive::new(config(), &servers(1), view(vec![node("a@h")]));
    let attempt = drive.poll().remove(0);
    drive.finish(&attempt, Outcome::Moved { node: Some("c@h".into()) });
    drive.poll();
    let report = drive.report();
    assert_eq!(report.targets.iter().map(|(name, count)| (&**name, *count)).collect::<Vec<_>>(), [("c@h", 1)]);
}

#[test]
fn a_server_that_has_ended_or_belongs_to_another_node_is_left_without_a_release() {
    let mut drive = Drive::new(config(), &servers(2), two_targets());
    let started = drive.poll();
    drive.finish(&started[0], Outcome::Gone);
    drive.finish(&started[1], Outcome::LostRace);
    drive.poll();
    assert!(drive.finished && drive.released.is_empty());
    assert_eq!(drive.report().left, [(Reason::Gone, 1), (Reason::LostRace, 1)].into());
}

#[test]
fn an_untouched_server_is_tried_again_and_finally_left_running() {
    let mut drive = Drive::new(Config { max_attempts: 2, ..config() }, &servers(1), two_targets());
    for _ in 0..2 {
        let attempt = drive.poll().remove(0);
        drive.finish(&attempt, Outcome::Untouched(Blame::Unknown));
        drive.later(200);
    }
    drive.poll();
    assert!(drive.finished && drive.released.is_empty(), "it was never stopped, so nothing is to be cleared");
    assert_eq!(drive.report().left, [(Reason::AttemptsExhausted, 1)].into());
}

#[test]
fn consecutive_failures_end_the_drain_and_leave_the_rest_running() {
    let config = Config { max_concurrency: 1, max_consecutive_failures: 4, ..config() };
    let mut drive = Drive::new(config, &servers(100), two_targets());
    for _ in 0..4 {
        let mut started = drive.poll();
        if started.is_empty() {
            drive.acknowledge_releases();
            started = drive.poll();
        }
        drive.finish(&started[0], Outcome::Displaced(Blame::Unknown));
    }
    assert!(drive.poll().is_empty());
    drive.acknowledge_releases();
    drive.poll();
    assert!(drive.finished);
    let report = drive.report();
    assert_eq!(report.ended, Some(Ended::Failures));
    assert_eq!(report.left, [(Reason::Failures, 99), (Reason::AttemptsExhausted, 1)].into());
}

#[test]
fn one_dying_target_with_many_attempts_in_flight_does_not_end_the_drain() {
    let mut drive = Drive::new(config(), &servers(100), two_targets());
    let started = drive.poll();
    drive.later(10);
    drive.event(Event::NodeDown("a@h".into())).expect("known");
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
fn no_attempt_starts_that_would_usually_end_too_late() {
    let config = Config { timeout_ms: 2_000, max_concurrency: 1, ..config() };
    let mut drive = Drive::new(config, &servers(50), two_targets());
    let first = drive.poll().remove(0);
    drive.later(10);
    drive.moved(&first);
    // 200 ms are kept for clearing reservations and an attempt takes 40 ms, so the last start is at 1,760 ms.
    drive.later(1_740);
    let last = drive.poll();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].timeout_ms, 50);
    drive.later(40);
    drive.moved(&last[0]);
    assert!(drive.poll().is_empty());
    assert!(drive.finished);
    assert_eq!(drive.report().left, [(Reason::Deadline, 48)].into());
}

#[test]
fn displaced_servers_are_released_at_the_end() {
    let mut drive = Drive::new(Config { timeout_ms: 2_000, ..config() }, &servers(2), two_targets());
    let started = drive.poll();
    drive.later(1_900);
    drive.finish(&started[0], Outcome::Displaced(Blame::Target));
    assert!(drive.poll().is_empty());
    assert_eq!(drive.released, [started[0].id]);
    drive.acknowledge_releases();
    drive.later(100);
    drive.poll();
    assert!(drive.finished, "the other one still hangs, but the time is over");
    assert_eq!(drive.report().left, [(Reason::Deadline, 2)].into());
    assert_eq!(drive.try_finish(&started[1], Outcome::Moved { node: None }), Err(EngineError::Finished));
    assert_eq!(drive.report().moved, 0, "what was reported stays reported");
}

#[test]
fn a_cancelled_drain_settles_attempts_in_flight_and_leaves_the_rest() {
    let mut drive = Drive::new(Config { max_concurrency: 2, ..config() }, &servers(10), two_targets());
    let started = drive.poll();
    drive.event(Event::Cancel).expect("running");
    assert!(drive.poll().is_empty() && !drive.finished);
    started.iter().for_each(|attempt| drive.moved(attempt));
    drive.poll();
    assert!(drive.finished);
    let report = drive.report();
    assert_eq!((report.moved, report.left), (2, [(Reason::Cancelled, 8)].into()));
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
fn a_node_that_appears_during_the_drain_is_used() {
    let mut drive = Drive::new(Config { max_concurrency: 10, ..config() }, &servers(100), view(vec![node("a@h")]));
    let first = drive.poll();
    drive.event(Event::View(two_targets())).expect("valid");
    first.iter().for_each(|attempt| drive.moved(attempt));
    let rest = drive.move_all();
    assert_eq!((count(&rest, "a@h"), count(&rest, "b@h")), (40, 50));
}

#[test]
fn invalid_events_are_refused_and_change_nothing() {
    let mut drive = Drive::new(config(), &servers(2), two_targets());
    let started = drive.poll();
    let before = drive.engine.progress(&drive.shared);
    let unexpected = |id| Err(EngineError::Unexpected { id: ServerId(id) });
    let wrong_attempt = common::Attempt { attempt: 7, ..started[0].clone() };
    assert_eq!(drive.try_finish(&wrong_attempt, Outcome::Gone), unexpected(0));
    assert_eq!(drive.event(Event::Stopped { id: ServerId(0) }), unexpected(0));
    assert_eq!(drive.event(Event::Released { id: ServerId(1) }), unexpected(1));
    assert_eq!(drive.event(Event::Stopped { id: ServerId(99) }), unexpected(99));
    let twice = view(vec![node("x@h"), node("x@h")]);
    assert!(matches!(drive.event(Event::View(twice)), Err(EngineError::Invalid { .. })));
    assert_eq!(drive.engine.progress(&drive.shared), before);
    drive.moved(&started[0]);
    assert_eq!(drive.try_finish(&started[0], Outcome::Gone), unexpected(0), "a duplicate");
}

#[test]
fn two_drains_that_share_a_ledger_do_not_overload_the_same_target() {
    let mut first = Drive::new(config(), &servers(30), two_targets());
    let other = Config { source: handoff_core::Source { name: "other@h".into(), ..Default::default() }, ..config() };
    let mut second =
        handoff_core::Engine::new(other, &servers(10), view(vec![node("a@h")]), first.now, &mut first.shared)
            .expect("valid");
    assert_eq!(second.poll(first.now, &mut first.shared).actions.len(), 10);
    let started = first.poll();
    assert_eq!((count(&started, "a@h"), count(&started, "b@h")), (10, 20));
}

#[test]
fn a_drain_without_servers_ends_at_once() {
    let config = Config { wait_for_target_ms: 5_000, ..config() };
    let mut drive = Drive::new(config, &[], view(vec![]));
    drive.poll();
    assert!(drive.finished);
}

#[test]
fn a_repeated_attempt_on_the_same_target_waits_for_the_cap_too() {
    let config = Config { max_concurrency_per_target: Some(1), ..config() };
    let mut drive = Drive::new(config, &servers(2), view(vec![node("a@h")]));
    let first = drive.poll().remove(0);
    drive.finish(&first, Outcome::RetrySame);
    let second = drive.poll();
    assert_eq!(second.len(), 1, "the other server has the target now");
    drive.later(100);
    assert!(drive.poll().is_empty());
    drive.moved(&second[0]);
    assert_eq!(drive.poll()[0].id, first.id);
}

#[test]
fn a_drain_with_an_older_view_projects_from_the_newest_report_of_all_drains() {
    let limited = |current, stamp_ms| NodeView {
        stamp_ms,
        capacity: vec![common::limit(handoff_core::Scope::Total, current, 2)],
        ..node("a@h")
    };
    let mut first = Drive::new(config(), &servers(5), view(vec![limited(0, WALL)]));
    let started = first.poll();
    assert_eq!(started.len(), 2);
    first.later(10);
    started.iter().for_each(|attempt| first.moved(attempt));
    let other = Config { source: handoff_core::Source { name: "other@h".into(), ..Default::default() }, ..config() };
    let newer = ClusterView { now_ms: WALL + 60, nodes: vec![limited(2, WALL + 50)] };
    handoff_core::Engine::new(other, &servers(1), newer, first.now, &mut first.shared).expect("valid");
    assert!(first.poll().is_empty(), "the two that arrived are in the report the other drain has seen");
}

#[test]
fn a_release_in_flight_counts_against_the_ceiling() {
    let config = Config { max_concurrency: 1, max_attempts: 1, ..config() };
    let mut drive = Drive::new(config, &servers(2), two_targets());
    let first = drive.poll().remove(0);
    drive.finish(&first, Outcome::Displaced(Blame::Server));
    assert!(drive.poll().is_empty(), "the released server does not run yet");
    assert_eq!(drive.released, [0]);
    drive.acknowledge_releases();
    assert_eq!(drive.poll()[0].id, 1);
}
