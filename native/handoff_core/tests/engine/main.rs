//! The engine's decisions, with and without failures.

#[path = "../common/mod.rs"]
mod common;
mod lagging;
mod targets;
mod waits;

use common::{Drive, MOVED, config, node, servers, spec, two_targets, view};
use handoff_core::time::Micros;
use handoff_core::{Blame, Config, Ended, EngineError, Event, Outcome, Reason, ServerId};

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
    let specs = [0, 5, 0, 9].map(|priority| spec(0, priority));
    let mut drive = Drive::new(Config { max_concurrency: 3, ..config() }, &specs, two_targets());
    let order: Vec<u32> = drive.poll().iter().map(|attempt| attempt.id).collect();
    assert_eq!(order, [3, 1, 0]);
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
fn the_gap_of_a_server_counts_from_its_first_attempt_and_all_its_attempts_are_one_retry() {
    let targets = view(vec![node("a@h"), node("b@h"), node("c@h")]);
    let mut drive = Drive::new(config(), &servers(1), targets);
    for outcome in [Outcome::Displaced(Blame::Server), Outcome::Displaced(Blame::Server), MOVED] {
        let attempt = drive.poll().remove(0);
        drive.later(100);
        drive.finish(&attempt, outcome);
    }
    let report = drive.report();
    assert_eq!((report.attempts, report.retried, report.gap.max), (3, 1, 300_000));
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
    assert_eq!(drive.try_finish(&started[1], MOVED), Err(EngineError::Finished));
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
fn a_cancelled_drain_with_less_time_than_planned_ends_while_attempts_are_in_flight() {
    let mut drive = Drive::new(Config { max_concurrency: 2, ..config() }, &servers(5), two_targets());
    assert_eq!(drive.poll().len(), 2);
    let end = drive.now + Micros::from_millis(100);
    for event in [Event::Cancel, Event::EndWithin(Micros::from_millis(100)), Event::EndWithin(Micros::MAX)] {
        drive.event(event).expect("running");
    }
    assert_eq!((drive.poll(), drive.wake, drive.finished), (vec![], Some(end), false));
    drive.now = end;
    assert_eq!((drive.poll(), drive.finished), (vec![], true));
    let report = drive.report();
    assert_eq!((report.left, report.ended), ([(Reason::Cancelled, 5)].into(), Some(Ended::Cancelled)));
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
fn a_drain_without_servers_ends_at_once() {
    let config = Config { wait_for_target_ms: 5_000, ..config() };
    let mut drive = Drive::new(config, &[], view(vec![]));
    drive.poll();
    assert!(drive.finished);
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
