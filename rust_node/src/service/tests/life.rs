//! One drain, from its opening until it is forgotten.

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc;

use tracing::{Event as Line, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::*;

/// The level of each line of the log.
struct Levels(mpsc::Sender<Level>);

impl<S: Subscriber> Layer<S> for Levels {
    fn on_event(&self, line: &Line<'_>, _: Context<'_, S>) {
        self.0.send(*line.metadata().level()).expect("the test reads it");
    }
}

#[test]
fn a_drain_runs_from_its_opening_to_its_report() {
    let mut service = service();
    let mut todo: VecDeque<_> = starts(&start(&mut service, MS(0), "a@h", 20, &["b@h", "c@h"])).into();
    let mut now = MS(0);
    let mut moved = BTreeSet::new();
    let mut report = None;
    while let Some((id, attempt, _)) = todo.pop_front() {
        now = now + MS(1);
        moved.insert(id);
        let answers = tell(&mut service, now, "a@h", finished(id, attempt, Outcome::Moved { node: None }));
        todo.extend(starts(&answers));
        report = answers.into_iter().find_map(|message| match message {
            Message::Report(report) => Some(report.report),
            _ => None,
        });
    }
    let report = report.expect("the last outcome ends the drain");
    assert_eq!((moved.len(), report.moved, report.targets.len()), (20, 20, 2));
    assert_eq!(service.drains(now)[0].stage, "over");
    assert_eq!(tell(&mut service, now, "a@h", DrainClose { id: ID }), []);
    assert_eq!(service.drains(now).len(), 0);
}

#[test]
fn a_keepalive_keeps_a_drain_and_progress_is_sent_twice_a_second() {
    let mut service = service();
    start(&mut service, MS(0), "a@h", 10, &["c@h"]);
    let mut told = 0;
    for at in (100..=10_000).step_by(100) {
        let answers = tell(&mut service, MS(at), "a@h", Keepalive { id: ID });
        told += answers.iter().filter(|message| matches!(message, Message::Progress(_))).count();
    }
    assert_eq!((told, service.drains(MS(10_000)).len()), (20, 1));
}

#[test]
fn the_deadline_is_the_time_left_at_the_start_not_the_configured_time() {
    let mut service = service();
    tell(&mut service, MS(0), "a@h", open("a@h", 10));
    tell(&mut service, MS(0), "a@h", servers(0, 10));
    tell(&mut service, MS(0), "a@h", view(&["c@h"]));
    assert_eq!(starts(&tell(&mut service, MS(0), "a@h", DrainStart { id: ID, left_ms: 1_000 })).len(), 8);
    let ended = (100..=30_000).step_by(100).find(|at| {
        let answers = tell(&mut service, MS(*at), "a@h", Keepalive { id: ID });
        answers.iter().any(|message| matches!(message, Message::Report(_)))
    });
    assert_eq!(ended, Some(1_000), "the target does not answer");
}

#[test]
fn a_stopping_service_hands_every_drain_back_and_accepts_no_more() {
    let mut service = service();
    start(&mut service, MS(0), "a@h", 10, &["c@h"]);
    service.stop(MS(1));
    assert_eq!(refusal(&sent_to(service.take_outputs(), "a@h")), Some(&RefuseReason::Stopping));
    assert_eq!(refusal(&tell(&mut service, MS(2), "a@h", open("a@h", 1))), Some(&RefuseReason::Stopping));
}

#[test]
fn a_drain_that_is_never_started_is_forgotten_after_its_own_timeout() {
    let mut service = service();
    let short = DrainOpen { config: Config { timeout_ms: 5_000, ..config("a@h") }, ..open("a@h", 10) };
    tell(&mut service, MS(0), "a@h", short);
    for at in (500..=5_000).step_by(500) {
        tell(&mut service, MS(at), "a@h", Keepalive { id: ID });
    }
    assert_eq!(service.drains(MS(5_000)).len(), 0);
}

#[test]
fn a_million_servers_arrive_in_chunks_and_start() {
    let mut service = service();
    let count = 1_000_000;
    tell(&mut service, MS(0), "a@h", open("a@h", count));
    for first in (0..count).step_by(handoff_wire::servers::PER_CHUNK) {
        assert_eq!(tell(&mut service, MS(0), "a@h", servers(first, 5_000)), []);
    }
    tell(&mut service, MS(0), "a@h", view(&["c@h"]));
    let answers = tell(&mut service, MS(0), "a@h", DrainStart { id: ID, left_ms: 30_000 });
    assert_eq!(starts(&answers).len(), 8);
    assert_eq!(service.drains(MS(0))[0].total, 1_000_000);
}

#[test]
fn drains_that_ended_or_whose_node_was_lost_are_in_the_history_with_their_numbers() {
    let mut service = service();
    let orders = start(&mut service, MS(0), "a@h", 2, &["b@h"]);
    for (id, attempt, _) in starts(&orders) {
        tell(&mut service, MS(40), "a@h", finished(id, attempt, Outcome::Moved { node: None }));
    }
    assert_eq!(service.drains(MS(40))[0].gaps.gap_us.count, 2);
    let ended = service.ended(MS(3_040));
    assert_eq!((ended.len(), &*ended[0].ended, ended[0].moved, ended[0].ago_s), (1, "done", 2, 3));
    assert_eq!((ended[0].gaps.gap_us.max, &*ended[0].gaps.gaps), (40_000, &[(40_000, 2)][..]));
    assert_eq!((ended[0].targets["b@h"], &*ended[0].node, &*ended[0].supervisor), (2, "a@h", "Sup"));
    tell(&mut service, MS(3_040), "a@h", DrainClose { id: ID });
    assert_eq!(service.ended(MS(3_040)).len(), 1, "its end is known already");

    start(&mut service, MS(4_000), "a@h", 9, &["b@h"]);
    service.peer_down(MS(5_000), "a@h");
    let ended = service.ended(MS(5_000));
    assert_eq!((ended.len(), &*ended[0].ended, ended[0].total, ended[0].moved), (2, "peer_down", 9, 0));
}

#[test]
fn a_drain_of_which_a_server_ended_by_itself_has_moved_all() {
    let (logged, levels) = mpsc::channel();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(Levels(logged)), || {
        let mut service = service();
        let orders = start(&mut service, MS(0), "a@h", 2, &["b@h"]);
        let outcomes = [Outcome::Moved { node: None }, Outcome::Gone];
        for ((id, attempt, _), outcome) in starts(&orders).into_iter().zip(outcomes) {
            tell(&mut service, MS(40), "a@h", finished(id, attempt, outcome));
        }
        let ended = &service.ended(MS(40))[0];
        assert_eq!((&*ended.ended, ended.total, ended.moved, ended.left["gone"]), ("done", 1, 1, 1));
    });
    // A line can be missing: another test, without a subscriber, may run its place in the code first.
    assert!(!levels.iter().any(|level| level == Level::WARN));
}

#[test]
fn a_refusal_is_in_the_history_with_its_reason() {
    let mut service = service();
    tell(&mut service, MS(0), "a@h", DrainOpen { drainer: drainer("b@h"), ..open("a@h", 1) });
    tell(&mut service, MS(0), "a@h", open("a@h", 1));
    tell(&mut service, MS(1_000), "a@h", DrainStart { id: ID, left_ms: 1 });
    let refused = service.refused(MS(3_000));
    let whys: Vec<&str> = refused.iter().map(|refusal| &*refusal.why).collect();
    assert!(whys[0].contains("servers before drain_start") && whys[1].contains("drainer: takes a process"), "{whys:?}");
    assert_eq!((refused[1].supervisor.as_deref(), refused[1].ago_s, &*refused[0].node), (Some("Sup"), 3, "a@h"));
}
