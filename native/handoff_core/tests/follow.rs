//! An engine that follows another one has the same state, takes over where the other stopped, and refuses
//! invalid orders.

mod common;

use std::collections::BTreeMap;

use common::{MOVED, config, node, servers, two_targets, view};
use handoff_core::time::Micros;
use handoff_core::{
    Action, Blame, Config, Engine, EngineError, Event, ModuleId, NodeView, Outcome, Reason, Report, ServerId,
    ServerSpec, Shared,
};

const MS: fn(u64) -> Micros = Micros::from_millis;

/// An engine that decides and one that follows it.
struct Pair {
    leader: (Engine, Shared),
    follower: (Engine, Shared),
    now: Micros,
}

fn engine(config: &Config, servers: &[ServerSpec]) -> (Engine, Shared) {
    let mut shared = Shared::new(config);
    (Engine::new(config.clone(), servers, two_targets(), MS(1_000), &mut shared).expect("valid"), shared)
}

impl Pair {
    fn new(config: &Config, servers: &[ServerSpec]) -> Pair {
        Pair { leader: engine(config, servers), follower: engine(config, servers), now: MS(1_000) }
    }

    /// The leader decides. The follower handles the orders a moment later.
    fn lead(&mut self) -> Vec<Action> {
        let (leader, shared) = &mut self.leader;
        let actions = leader.poll(self.now, shared).actions;
        self.now = self.now + MS(1);
        for action in &actions {
            assert!(self.follow(action).is_ok(), "{action:?}");
        }
        actions
    }

    fn follow(&mut self, action: &Action) -> Result<Action, EngineError> {
        self.follower.0.follow(self.now, action, &mut self.follower.1)
    }

    /// The follower decides from here on.
    fn take_over(&mut self) -> Vec<Action> {
        self.follower.0.poll(self.now, &mut self.follower.1).actions
    }

    fn event_of_follower(&mut self, event: Event) {
        self.follower.0.on_event(self.now, event, &mut self.follower.1).expect("it fits");
    }

    fn report_of_follower(&self) -> Report {
        self.follower.0.report(self.now, &self.follower.1)
    }

    fn event(&mut self, event: &Event) {
        for (engine, shared) in [&mut self.leader, &mut self.follower] {
            engine.on_event(self.now, event.clone(), shared).expect("it fits");
        }
    }

    fn finished(&mut self, id: u32, attempt: u32, outcome: Outcome) {
        self.now = self.now + MS(10);
        self.event(&Event::Finished { id: ServerId(id), attempt, outcome, latency: MS(10) });
    }
}

fn started(actions: &[Action]) -> Vec<(u32, String, u32)> {
    let start = |action: &Action| match action {
        Action::Start { id, target, attempt, .. } => Some((id.0, target.to_string(), *attempt)),
        _ => None,
    };
    actions.iter().filter_map(start).collect()
}

fn start(id: u32, target: &str, attempt: u32) -> Action {
    Action::Start { id: ServerId(id), target: target.into(), attempt, timeout: MS(60_000) }
}

#[test]
fn a_follower_of_a_whole_drain_has_the_same_report() {
    let config = Config { max_concurrency: 7, max_attempts: 2, ..config() };
    let mut pair = Pair::new(&config, &servers(100));
    let mut turn = 0_u32;
    loop {
        let actions = pair.lead();
        for (id, _, attempt) in started(&actions) {
            turn += 1;
            pair.finished(
                id,
                attempt,
                match turn % 11 {
                    0 => Outcome::Displaced(Blame::Server),
                    3 => Outcome::Untouched(Blame::Unknown),
                    5 => Outcome::RetrySame,
                    7 => Outcome::Gone,
                    _ => MOVED,
                },
            );
        }
        for action in &actions {
            if let Action::Release { id } = action {
                pair.event(&Event::Released { id: *id });
            }
        }
        if actions.last() == Some(&Action::Finish) {
            break;
        }
        pair.now = pair.now + MS(50);
    }
    let (leader, follower) = (&pair.leader, &pair.follower);
    assert_eq!(leader.0.results(), follower.0.results());
    let mut led = leader.0.report(pair.now, &leader.1);
    let followed = pair.report_of_follower();
    // The follower receives a start later, so its gaps are a little shorter, and handles each order alone.
    led.gap = followed.gap;
    led.duration = followed.duration;
    led.concurrency.last = followed.concurrency.last;
    assert_eq!(led, followed);
    assert!(followed.moved > 50 && followed.retried > 0 && followed.left.len() > 1, "{followed:?}");
}

#[test]
fn a_takeover_in_the_middle_starts_no_server_twice_and_forgets_none() {
    let config = Config { max_concurrency: 4, ..config() };
    let mut pair = Pair::new(&config, &servers(12));
    let first = started(&pair.lead());
    assert_eq!(first.len(), 4);
    pair.finished(first[0].0, 1, MOVED);
    pair.finished(first[1].0, 1, Outcome::Displaced(Blame::Server));
    pair.finished(first[2].0, 1, Outcome::Stopping);
    // first[3] is in flight. From here on the leader is silent.
    let mut ends: BTreeMap<u32, u32> = BTreeMap::new();
    let mut open = started(&pair.take_over());
    assert_eq!((open[0].0, open[0].2), (first[1].0, 2), "the displaced one before anything else");
    assert_ne!(open[0].1, first[1].1, "another target");
    let moved = |pair: &mut Pair, id: u32, attempt: u32| {
        pair.now = pair.now + MS(10);
        pair.event_of_follower(Event::Finished { id: ServerId(id), attempt, outcome: MOVED, latency: MS(10) });
    };
    moved(&mut pair, first[3].0, 1);
    pair.event_of_follower(Event::Stopped { id: ServerId(first[2].0) });
    while !open.is_empty() {
        for (id, _, attempt) in std::mem::take(&mut open) {
            *ends.entry(id).or_insert(0) += 1;
            moved(&mut pair, id, attempt);
        }
        open = started(&pair.take_over());
    }
    assert!(ends.values().all(|times| *times == 1));
    assert!(!ends.contains_key(&first[0].0) && !ends.contains_key(&first[3].0));
    let report = pair.report_of_follower();
    assert_eq!((report.total, report.moved, report.gap.count, report.retried), (12, 12, 12, 2));
    assert!(pair.follower.0.is_over());
}

#[test]
fn invalid_orders_are_refused_and_change_nothing() {
    let config = Config { max_concurrency: 2, ..config() };
    let mut pair = Pair::new(&config, &servers(5));
    let unexpected = |id| Err(EngineError::Unexpected { id: ServerId(id) });
    assert_eq!(pair.follow(&start(5, "a@h", 1)), unexpected(5), "no such server");
    assert_eq!(pair.follow(&start(0, "c@h", 1)), unexpected(0), "no such target");
    assert_eq!(pair.follow(&start(0, "a@h", 2)), unexpected(0), "no first attempt yet");
    assert_eq!(pair.follow(&Action::Release { id: ServerId(0) }), unexpected(0), "it runs at the source");
    assert_eq!(pair.follow(&Action::Release { id: ServerId(9) }), unexpected(9));
    assert!(pair.follow(&start(3, "a@h", 1)).is_ok(), "any order of servers");
    assert_eq!(pair.follow(&start(3, "b@h", 1)), unexpected(3), "twice");
    assert_eq!(pair.follow(&start(3, "b@h", 2)), unexpected(3), "while it is under way");
    assert!(pair.follow(&start(0, "b@h", 1)).is_ok());
    assert_eq!(pair.follow(&start(1, "b@h", 1)), unexpected(1), "more than may be stopped");
    assert_eq!(pair.follow(&Action::Finish), unexpected(0), "something is under way");
    let progress = pair.follower.0.progress(&pair.follower.1);
    assert_eq!((progress.in_flight, progress.pending), (2, 3));
}

#[test]
fn an_order_to_a_target_without_the_servers_module_is_refused() {
    let mut pair = Pair::new(&config(), &servers(2));
    let lacking = NodeView { missing: vec![ModuleId(0)], ..node("a@h") };
    pair.event(&Event::View(view(vec![lacking, node("b@h")])));
    assert_eq!(pair.follow(&start(0, "a@h", 1)), Err(EngineError::Unexpected { id: ServerId(0) }));
    assert!(pair.follow(&start(0, "b@h", 1)).is_ok());
}

#[test]
fn an_attempt_gets_at_most_the_time_limit_of_the_follower() {
    let config = Config { timeout_ms: 10_000, attempt_timeout_ms: 2_000, ..config() };
    let mut pair = Pair::new(&config, &servers(1));
    assert!(matches!(pair.follow(&start(0, "a@h", 1)), Ok(Action::Start { timeout, .. }) if timeout == MS(2_000)));
}

#[test]
fn no_server_starts_after_a_cancel_and_no_order_is_accepted_after_the_end() {
    let mut pair = Pair::new(&config(), &servers(2));
    pair.follow(&start(0, "a@h", 1)).expect("fits");
    pair.event_of_follower(Event::Cancel);
    assert!(pair.follow(&start(1, "a@h", 1)).is_err());
    pair.event_of_follower(Event::Finished { id: ServerId(0), attempt: 1, outcome: MOVED, latency: MS(1) });
    assert_eq!(pair.follow(&Action::Finish), Ok(Action::Finish));
    assert_eq!(pair.follow(&start(1, "a@h", 1)), Err(EngineError::Finished));
    let report = pair.report_of_follower();
    assert_eq!((report.moved, report.left), (1, [(Reason::Cancelled, 1)].into()));
}
