//! The cause of failed attempts: after failures of the store no server is stopped without a test of the
//! store, and faults of one server do not affect others.

mod common;

use common::{Attempt, Drive, MOVED, config, node, servers, spec, two_targets, view};
use handoff_core::time::Micros;
use handoff_core::{Blame, Config, Ended, NodeView, Outcome, Reason};

fn ids(attempts: &[Attempt]) -> Vec<u32> {
    attempts.iter().map(|attempt| attempt.id).collect()
}

/// Polls every 10 ms for at most `ms`. `finish` returns how each attempt ends.
fn run(drive: &mut Drive, ms: u64, mut finish: impl FnMut(&Attempt) -> Outcome) {
    for _ in 0..ms / 10 {
        let started = drive.poll();
        drive.acknowledge_releases();
        drive.later(10);
        for attempt in started {
            let outcome = finish(&attempt);
            drive.finish(&attempt, outcome);
        }
        if drive.finished {
            return;
        }
    }
}

#[test]
fn a_store_that_fails_is_probed_by_one_displaced_server_before_a_running_one_is_stopped() {
    let mut drive = Drive::new(Config { max_concurrency: 4, ..config() }, &servers(20), two_targets());
    let started = drive.poll();
    started.iter().for_each(|attempt| drive.finish(attempt, Outcome::Displaced(Blame::Store)));
    assert!(drive.poll().is_empty());
    drive.later(50);
    let probe = drive.poll();
    assert_eq!((ids(&probe), probe[0].attempt), (vec![0], 2), "one of the four");
    drive.moved(&probe[0]);
    let again = drive.poll();
    assert_eq!(ids(&again), [1, 2, 3, 4], "one success and all is well: the displaced go first");
    again.iter().for_each(|attempt| drive.moved(attempt));
    assert_eq!(drive.move_all().len(), 15);
}

#[test]
fn during_a_store_outage_one_running_server_at_a_time_is_tried() {
    let mut drive = Drive::new(Config { max_concurrency: 10, ..config() }, &servers(50), two_targets());
    let (mut polls_with, mut most) = (0, 0);
    for attempt in drive.poll() {
        drive.finish(&attempt, Outcome::Untouched(Blame::Store));
    }
    for _ in 0..200 {
        drive.later(25);
        let started = drive.poll();
        most = most.max(started.len());
        polls_with += usize::from(!started.is_empty());
        started.iter().for_each(|attempt| drive.finish(attempt, Outcome::Untouched(Blame::Store)));
    }
    assert_eq!(most, 1, "a batch was tried to find out whether the store is back");
    assert!((3..=20).contains(&polls_with), "{polls_with} probes in five seconds");
    run(&mut drive, 10_000, |_| MOVED);
    assert!(drive.finished, "the store is back");
    assert_eq!((drive.report().moved, drive.report().ended), (50, Some(Ended::Done)));
}

#[test]
fn attempts_that_the_store_failed_do_not_use_up_max_attempts() {
    let config = Config { max_attempts: 2, max_consecutive_failures: 3, ..config() };
    let mut drive = Drive::new(config, &servers(6), two_targets());
    let mut tries = 0;
    run(&mut drive, 20_000, |_| {
        tries += 1;
        if tries <= 12 { Outcome::Displaced(Blame::Store) } else { MOVED }
    });
    assert_eq!((drive.report().moved, drive.report().ended), (6, Some(Ended::Done)));
}

#[test]
fn attempts_whose_connection_was_lost_are_not_charged() {
    let config = Config { max_attempts: 2, max_consecutive_failures: 3, wait_for_lost_ms: 5_000, ..config() };
    let (away, back) = (NodeView { connected: false, ..node("a@h") }, node("a@h"));
    let mut drive = Drive::new(config, &servers(6), view(vec![back.clone()]));
    for round in 0..5 {
        let started = drive.poll();
        assert!(!started.is_empty(), "nothing was tried after {round} lost connections");
        drive.lose("a@h");
        for (index, attempt) in started.iter().enumerate() {
            let blame = if index == 0 { Outcome::Untouched(Blame::Target) } else { Outcome::Displaced(Blame::Target) };
            // A server that an earlier attempt has stopped stays stopped.
            drive.finish(attempt, if round == 0 { blame } else { Outcome::Displaced(Blame::Target) });
        }
        drive.see(view(vec![away.clone()]));
        assert!(drive.poll().is_empty(), "tried on a node without a connection");
        drive.later(900);
        drive.see(view(vec![back.clone()]));
    }
    assert_eq!(drive.move_all().len(), 6);
    assert_eq!((drive.report().moved, drive.report().ended), (6, Some(Ended::Done)));
}

#[test]
fn an_attempt_that_begins_after_a_lost_connection_is_charged() {
    let config = Config { max_attempts: 2, max_consecutive_failures: 100, ..config() };
    let mut drive = Drive::new(config, &servers(1), two_targets());
    drive.lose("a@h");
    drive.see(two_targets());
    drive.later(10);
    run(&mut drive, 20_000, |_| Outcome::Untouched(Blame::Target));
    assert_eq!(drive.report().left.get(&Reason::AttemptsExhausted), Some(&1));
}

#[test]
fn a_server_whose_own_object_the_store_refuses_is_charged_and_delays_no_other() {
    let mut drive = Drive::new(Config { max_concurrency: 4, ..config() }, &servers(100), two_targets());
    let mut refused = 0;
    run(&mut drive, 3_000, |attempt| {
        refused += u32::from(attempt.id == 0);
        if attempt.id == 0 { Outcome::Displaced(Blame::Store) } else { MOVED }
    });
    let report = drive.report();
    assert_eq!((report.moved, report.left), (99, [(Reason::AttemptsExhausted, 1)].into()));
    assert!(refused <= 6, "{refused} attempts for one server");
}

#[test]
fn thirty_servers_in_a_row_with_faults_of_their_own_do_not_end_the_drain() {
    for fault in [Outcome::NotStorable, Outcome::Untouched(Blame::Server)] {
        for faulty in [30, 300] {
            let mut drive = Drive::new(config(), &servers(1_000), two_targets());
            run(&mut drive, 20_000, |attempt| if attempt.id < faulty { fault.clone() } else { MOVED });
            let report = drive.report();
            let reason = if fault == Outcome::NotStorable { Reason::NotStorable } else { Reason::AttemptsExhausted };
            assert_eq!(report.moved, u64::from(1_000 - faulty), "{fault:?}");
            assert_eq!(report.left, [(reason, u64::from(faulty))].into(), "{fault:?}");
            assert_eq!(report.ended, Some(Ended::Done), "{fault:?}");
        }
    }
}

#[test]
fn servers_that_do_not_start_elsewhere_end_the_drain_for_their_module_alone() {
    let specs: Vec<_> = (0..200).map(|id| spec(u32::from(id % 2 == 0), 0)).collect();
    let config = Config { modules: 2, max_concurrency: 1, max_consecutive_failures: 5, ..config() };
    let mut drive = Drive::new(config, &specs, two_targets());
    run(&mut drive, 20_000, |attempt| if attempt.id % 2 == 0 { Outcome::Displaced(Blame::Server) } else { MOVED });
    let report = drive.report();
    assert_eq!((report.moved, report.ended), (100, Some(Ended::Failures)));
    assert!(report.left[&Reason::Failures] >= 95, "{:?}", report.left);
}

#[test]
fn a_server_whose_state_cannot_be_stored_is_left_running_at_once() {
    let mut drive = Drive::new(config(), &servers(2), two_targets());
    let started = drive.poll();
    drive.finish(&started[0], Outcome::NotStorable);
    drive.moved(&started[1]);
    assert!(drive.poll().is_empty() && drive.finished && drive.released.is_empty());
    assert_eq!(drive.report().left, [(Reason::NotStorable, 1)].into());
    assert_eq!(drive.engine.results(), [Reason::NotStorable.code(), 0]);
}

#[test]
fn a_server_whose_final_write_failed_is_started_again_and_never_reported_as_moved() {
    let mut drive = Drive::new(config(), &servers(2), two_targets());
    let started = drive.poll();
    drive.finish(&started[0], Outcome::NotStored);
    drive.moved(&started[1]);
    drive.later(50);
    let again = drive.poll().remove(0);
    assert_eq!((again.id, again.attempt), (0, 2), "it runs nowhere: it is brought up");
    drive.moved(&again);
    drive.poll();
    assert!(drive.finished);
    let report = drive.report();
    assert_eq!((report.moved, report.gap.count, report.targets.values().sum()), (1, 1, 1_u64));
    assert_eq!(report.left, [(Reason::StateNotStored, 1)].into());
}

#[test]
fn a_target_that_the_store_refuses_while_it_serves_others_does_not_delay_the_drain() {
    let mut drive = Drive::new(config(), &servers(120), two_targets());
    run(&mut drive, 5_000, |start| if start.target == "b@h" { Outcome::Displaced(Blame::Store) } else { MOVED });
    assert!(drive.finished && drive.released.is_empty());
    let report = drive.report();
    assert_eq!((report.moved, report.ended), (120, Some(Ended::Done)));
    assert_eq!(report.targets, [("a@h".into(), 120)].into());
}

#[test]
fn a_store_that_refuses_everything_for_a_while_is_not_charged_to_targets() {
    let mut drive = Drive::new(config(), &servers(120), two_targets());
    let until = drive.now + Micros::from_millis(500);
    while drive.now < until {
        run(&mut drive, 10, |_| Outcome::Displaced(Blame::Store));
    }
    run(&mut drive, 5_000, |_| MOVED);
    let report = drive.report();
    assert_eq!((report.moved, report.ended), (120, Some(Ended::Done)));
    assert!(report.targets.values().all(|&moved| moved >= 40), "both are used: {:?}", report.targets);
}

#[test]
fn servers_whose_terminate_raises_neither_slow_down_nor_end_the_drain() {
    let time = |fails: u32| {
        let mut drive = Drive::new(config(), &servers(300), two_targets());
        run(&mut drive, 30_000, |of| if of.id < fails && of.attempt == 1 { Outcome::StopFailed } else { MOVED });
        assert!(drive.finished && drive.released.is_empty());
        (drive.now, drive.report())
    };
    let (healthy, _) = time(0);
    let (troubled, report) = time(30);
    assert_eq!((report.moved, report.left), (270, [(Reason::StateNotStored, 30)].into()));
    assert_eq!((report.attempts, report.ended), (330, Some(Ended::Done)));
    assert!(troubled.since(healthy) <= Micros::from_millis(100), "{troubled:?} instead of {healthy:?}");
}

#[test]
fn a_server_whose_stop_is_reported_as_failed_repeatedly_is_given_up() {
    let mut drive = Drive::new(config(), &servers(1), two_targets());
    run(&mut drive, 30_000, |_| Outcome::StopFailed);
    assert_eq!(drive.report().left, [(Reason::StateNotStored, 1)].into());
    assert!(drive.finished && drive.report().attempts <= 4, "{} attempts", drive.report().attempts);
}

#[test]
fn a_server_whose_final_write_failed_is_reported_so_if_it_is_starting_when_time_runs_out() {
    let mut drive = Drive::new(Config { timeout_ms: 2_000, ..config() }, &servers(1), two_targets());
    let first = drive.poll().remove(0);
    drive.finish(&first, Outcome::NotStored);
    drive.later(50);
    assert_eq!(drive.poll().len(), 1);
    drive.later(2_000);
    drive.poll();
    assert!(drive.finished);
    assert_eq!(drive.report().left, [(Reason::StateNotStored, 1)].into());
}

#[test]
fn a_server_whose_final_write_failed_is_reported_so_when_time_runs_out() {
    let mut drive = Drive::new(Config { timeout_ms: 2_000, ..config() }, &servers(1), two_targets());
    run(&mut drive, 3_000, |_| Outcome::NotStored);
    assert!(drive.finished);
    assert_eq!(drive.report().left, [(Reason::StateNotStored, 1)].into());
    assert_eq!(drive.engine.results(), [Reason::StateNotStored.code()]);
}
