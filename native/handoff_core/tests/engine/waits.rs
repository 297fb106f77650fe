//! What a drain says that it waits for while nothing is in flight.

use handoff_core::{Blame, Config, Engine, Outcome, Source, WaitsFor};

use crate::common::{Drive, config, servers, two_targets, view};

fn waits_for(drive: &Drive) -> Option<WaitsFor> {
    drive.engine.progress(&drive.shared).waits_for
}

#[test]
fn for_the_limit_while_other_drains_use_it_up() {
    let config = Config { max_concurrency: 2, ..config() };
    let mut other = Drive::new(config.clone(), &servers(2), two_targets());
    let started = other.poll();
    let source = Source { name: "other@h".into(), ..Source::default() };
    let mut engine = Engine::new(Config { source, ..config }, &servers(2), two_targets(), other.now, &mut other.shared)
        .expect("valid");
    assert_eq!(engine.poll(other.now, &mut other.shared).actions, []);
    assert_eq!(engine.progress(&other.shared).waits_for, Some(WaitsFor::Limit));
    assert_eq!(waits_for(&other), None, "two are in flight");
    other.moved(&started[0]);
    assert_eq!(engine.poll(other.now, &mut other.shared).actions.len(), 1);
    assert_eq!(engine.progress(&other.shared).waits_for, None);
}

#[test]
fn for_the_store_after_a_failure_also_if_every_server_has_been_tried() {
    for count in [2, 3] {
        let mut drive = Drive::new(Config { max_concurrency: 2, ..config() }, &servers(count), two_targets());
        for attempt in drive.poll() {
            drive.finish(&attempt, Outcome::Untouched(Blame::Store));
        }
        assert!(drive.poll().is_empty());
        assert_eq!(waits_for(&drive), Some(WaitsFor::Store), "{count} servers");
    }
}

#[test]
fn for_a_target() {
    let mut drive = Drive::new(Config { wait_for_target_ms: 2_000, ..config() }, &servers(1), view(vec![]));
    drive.poll();
    assert_eq!(waits_for(&drive), Some(WaitsFor::Target));
    drive.later(2_000);
    drive.poll();
    assert_eq!((waits_for(&drive), drive.finished), (None, true));

    let mut drive = Drive::new(config(), &servers(1), two_targets());
    let attempt = drive.poll().remove(0);
    drive.finish(&attempt, Outcome::Untouched(Blame::Target));
    assert!(drive.poll().is_empty(), "its next attempt is a little later");
    assert_eq!(waits_for(&drive), Some(WaitsFor::Target));
}

#[test]
fn for_its_pace() {
    let mut drive = Drive::new(Config { max_per_second: Some(1), ..config() }, &servers(2), two_targets());
    let attempt = drive.poll().remove(0);
    drive.moved(&attempt);
    assert!(drive.poll().is_empty());
    assert_eq!(waits_for(&drive), Some(WaitsFor::Pace));
}
