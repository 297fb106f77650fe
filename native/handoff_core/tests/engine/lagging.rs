//! Targets whose registry has not received the stop of a server yet.

use handoff_core::time::Micros;
use handoff_core::{Config, NodeView, Outcome, Reason, Scope};

use crate::common::{Drive, config, limit, node, servers, two_targets, view};

#[test]
fn a_target_whose_registry_lags_is_tried_again_soon_without_charge() {
    let mut drive = Drive::new(Config { max_attempts: 1, ..config() }, &servers(1), two_targets());
    let first = drive.poll().remove(0);
    drive.finish(&first, Outcome::RetrySame);
    assert!(drive.poll().is_empty());
    assert_eq!(drive.wake, Some(drive.now + Micros::from_millis(4)));
    drive.later(4);
    let again = drive.poll().remove(0);
    assert_eq!((&again.target, again.attempt), (&first.target, 2));
    drive.moved(&again);
    drive.poll();
    assert_eq!(drive.report().moved, 1);
}

#[test]
fn each_pause_for_a_target_that_lags_is_twice_as_long_up_to_64_ms() {
    let mut drive = Drive::new(config(), &servers(1), view(vec![node("a@h")]));
    for pause_ms in [4, 8, 16, 32, 64, 64, 64, 64] {
        let attempt = drive.poll().remove(0);
        drive.finish(&attempt, Outcome::RetrySame);
        assert!(drive.poll().is_empty());
        assert_eq!(drive.wake, Some(drive.now + Micros::from_millis(pause_ms)));
        drive.later(pause_ms);
    }
}

#[test]
fn a_server_whose_target_lags_keeps_its_slot_there() {
    let with_room_for_one = |name| NodeView { capacity: vec![limit(Scope::Total, 0, 1)], ..node(name) };
    let two_rooms = view(vec![with_room_for_one("a@h"), with_room_for_one("b@h")]);
    let mut drive = Drive::new(Config { max_concurrency: 2, ..config() }, &servers(3), two_rooms);
    let started = drive.poll();
    drive.finish(&started[0], Outcome::RetrySame);
    drive.moved(&started[1]);
    assert!(drive.poll().is_empty(), "the third server has room at neither");
    drive.later(4);
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

/// Attempts of one server that all find a registry that lags. Returns their targets.
fn lag(drive: &mut Drive, attempts: u32) -> Vec<String> {
    let mut lagging = || {
        let attempt = drive.poll().remove(0);
        drive.finish(&attempt, Outcome::RetrySame);
        drive.later(100);
        attempt.target
    };
    (0..attempts).map(|_| lagging()).collect()
}

#[test]
fn a_target_whose_registry_keeps_lagging_is_given_up() {
    let mut drive = Drive::new(config(), &servers(1), two_targets());
    let targets = lag(&mut drive, 10);
    assert_eq!(targets.iter().filter(|target| *target == "a@h").count(), 9);
    assert_eq!(targets[9], "b@h");
}

#[test]
fn each_target_whose_registry_lags_has_the_same_patience() {
    let mut drive = Drive::new(config(), &servers(1), two_targets());
    let targets = lag(&mut drive, 18);
    let of = |target| targets.iter().filter(|name| *name == target).count();
    assert_eq!((of("a@h"), of("b@h")), (9, 9));
}

#[test]
fn the_first_pause_for_the_next_target_that_lags_is_short_again() {
    let mut drive = Drive::new(config(), &servers(1), two_targets());
    lag(&mut drive, 9);
    let at_the_next = drive.poll().remove(0);
    drive.finish(&at_the_next, Outcome::RetrySame);
    assert!(drive.poll().is_empty());
    assert_eq!(drive.wake, Some(drive.now + Micros::from_millis(4)));
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
