//! An engine that follows another one has the same state, takes over where the other stopped, and refuses
//! invalid orders.

mod common;

use std::collections::{BTreeMap, VecDeque};

use common::{MOVED, config, node, servers, spec, two_targets, view};
use handoff_core::time::Micros;
use handoff_core::{
    Action, Blame, ClusterView, Config, Ended, Engine, EngineError, Event, Goal, ModuleId, NodeView, Outcome, Reason,
    Report, ServerId, ServerSpec, Shared,
};
use proptest::prelude::*;

const MS: fn(u64) -> Micros = Micros::from_millis;

/// An engine that decides and one that follows it.
struct Pair {
    leader: (Engine, Shared),
    follower: (Engine, Shared),
    now: Micros,
}

impl Pair {
    fn new(config: &Config, servers: &[ServerSpec]) -> Pair {
        Pair::on(two_targets(), config, servers)
    }

    fn on(view: ClusterView, config: &Config, servers: &[ServerSpec]) -> Pair {
        let engine = || {
            let mut shared = Shared::new(config);
            (Engine::new(config.clone(), servers, view.clone(), MS(1_000), &mut shared).expect("valid"), shared)
        };
        Pair { leader: engine(), follower: engine(), now: MS(1_000) }
    }

    fn later(&mut self, ms: u64) {
        self.now = self.now + MS(ms);
    }

    /// The leader decides. The follower handles the orders a moment later.
    fn lead(&mut self) -> Vec<Action> {
        let actions = self.orders();
        self.later(1);
        for action in &actions {
            assert!(self.follow(action).is_ok(), "{action:?}");
        }
        actions
    }

    /// The leader decides.
    fn orders(&mut self) -> Vec<Action> {
        self.leader.0.poll(self.now, &mut self.leader.1).actions
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

    fn event_of_leader(&mut self, event: Event) -> Result<(), EngineError> {
        self.leader.0.on_event(self.now, event, &mut self.leader.1)
    }

    fn report_of_follower(&self) -> Report {
        self.follower.0.report(self.now, &self.follower.1)
    }

    fn event(&mut self, event: &Event) {
        self.event_of_follower(event.clone());
        self.event_of_leader(event.clone()).expect("it fits");
    }

    fn finished(&mut self, id: u32, attempt: u32, outcome: Outcome) {
        self.later(10);
        self.event(&finished(id, attempt, outcome));
    }
}

fn finished(id: u32, attempt: u32, outcome: Outcome) -> Event {
    Event::Finished { id: ServerId(id), attempt, outcome, latency: MS(10) }
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
        pair.event_of_follower(finished(id, attempt, MOVED));
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

#[test]
fn a_drain_may_end_with_attempts_in_flight_just_before_its_deadline_and_not_earlier() {
    let config = Config { timeout_ms: 10_000, max_concurrency: 2, ..config() };
    let mut pair = Pair::new(&config, &servers(3));
    pair.follow(&start(0, "a@h", 1)).expect("fits");
    pair.follow(&start(1, "a@h", 1)).expect("fits");
    pair.later(8_999);
    assert_eq!(pair.follow(&Action::Finish), Err(EngineError::Unexpected { id: ServerId(0) }));
    pair.later(1);
    pair.event_of_follower(finished(0, 1, Outcome::Displaced(Blame::Target)));
    assert!(pair.follow(&Action::Finish).is_err(), "a stopped server would not be released");
    pair.follow(&Action::Release { id: ServerId(0) }).expect("fits");
    assert_eq!(pair.follow(&Action::Finish), Ok(Action::Finish));
    let report = pair.report_of_follower();
    assert_eq!((report.left, report.ended), ([(Reason::Deadline, 3)].into(), Some(Ended::Deadline)));
    assert!(pair.follower.0.results().iter().all(|result| *result == Reason::Deadline.code()));
}

#[test]
fn a_server_whose_failures_only_the_follower_charges_may_be_ordered_again() {
    let mut pair = Pair::new(&Config { max_attempts: 2, ..config() }, &servers(2));
    let orders = pair.orders();
    let (refused, other) = (started(&orders)[0].0, started(&orders)[1].0);
    pair.follow(&orders[0]).expect("fits");
    pair.later(1);
    let failure = finished(refused, 1, Outcome::Untouched(Blame::Store));
    pair.event_of_follower(failure.clone());
    pair.later(1);
    // For the follower, and not for the leader, the store serves the other server after that failure.
    pair.follow(&orders[1]).expect("fits");
    pair.event_of_leader(failure).expect("fits");
    pair.finished(other, 1, MOVED);
    for attempt in 2..=4 {
        pair.later(1_000);
        let again = started(&pair.lead());
        assert_eq!((again[0].0, again[0].2), (refused, attempt));
        pair.finished(refused, attempt, Outcome::Untouched(Blame::Store));
    }
}

#[test]
fn a_server_whose_target_was_lost_before_its_order_arrived_may_be_ordered_again() {
    let mut pair = Pair::new(&Config { max_attempts: 1, ..config() }, &servers(1));
    let orders = pair.orders();
    let (id, target, _) = started(&orders).remove(0);
    let down = Event::NodeDown(target);
    pair.event_of_follower(down.clone());
    pair.later(1);
    pair.follow(&orders[0]).expect("fits");
    pair.event_of_leader(down).expect("fits");
    pair.finished(id, 1, Outcome::Untouched(Blame::Target));
    assert_eq!(started(&pair.lead()).len(), 1, "the leader does not charge the attempt");
}

/// The source with that many servers, and two nodes without any, which have room for servers of both modules.
fn rebalanced(servers: u64) -> ClusterView {
    let with = |name: &str, servers| NodeView { servers: Some(servers), ..node(name) };
    view(vec![with("source@h", servers), with("a@h", 0), with("b@h", 0)])
}

#[test]
fn servers_that_the_leader_of_a_rebalance_leaves_running_are_not_counted_as_moved() {
    let specs: Vec<_> = (0..60).map(|id| spec(u32::from(id >= 20), i32::from(id >= 20))).collect();
    for max_attempts in [1, 3] {
        let config = Config { goal: Goal::Rebalance, modules: 2, max_concurrency: 8, max_attempts, ..config() };
        let mut pair = Pair::on(rebalanced(60), &config, &specs);
        let failing = started(&pair.lead());
        assert!(failing.len() == 8 && failing.iter().all(|(id, ..)| *id < 20), "{failing:?}");
        let mut lacking = rebalanced(60);
        lacking.nodes[1..].iter_mut().for_each(|node| node.missing = vec![ModuleId(0)]);
        pair.event(&Event::View(lacking));
        // They have used up their attempts, or have no target for another one.
        failing.iter().for_each(|(id, ..)| pair.finished(*id, 1, Outcome::Untouched(Blame::Server)));
        let mut moved = 0;
        while !pair.leader.0.is_over() {
            pair.later(100);
            for (id, _, attempt) in started(&pair.lead()) {
                pair.finished(id, attempt, MOVED);
                moved += 1;
            }
        }
        assert_eq!((moved, pair.report_of_follower().moved), (40, 40), "with at most {max_attempts} attempts");
    }
}

#[test]
fn a_takeover_begins_no_more_moves_in_a_second_than_allowed() {
    let mut pair = Pair::new(&Config { max_per_second: Some(1), ..config() }, &servers(3));
    assert_eq!(started(&pair.lead()).len(), 1);
    assert_eq!(started(&pair.take_over()), []);
    pair.later(1_000);
    assert_eq!(started(&pair.take_over()).len(), 1);
}

/// The next event while orders and events cross on their way.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    /// The follower receives an order.
    Order,
    /// The leader receives an event, and decides.
    Event,
    /// The attempt at this position ends (modulo those in flight).
    End(usize, Outcome),
    /// The stopping server at this position ends.
    Down(usize),
    /// A reservation is cleared.
    Released,
    NodeDown(&'static str),
    /// All nodes are connected.
    View,
}

fn step() -> impl Strategy<Value = Step> {
    let blame = prop_oneof![Just(Blame::Target), Just(Blame::Server), Just(Blame::Store), Just(Blame::Unknown)];
    let outcome = prop_oneof![
        4 => Just(MOVED),
        8 => blame.clone().prop_map(Outcome::Untouched),
        2 => blame.prop_map(Outcome::Displaced),
        1 => Just(Outcome::RetrySame),
        1 => Just(Outcome::Stopping),
        1 => Just(Outcome::NotStored),
        1 => Just(Outcome::StopFailed),
        1 => Just(Outcome::Gone),
    ];
    prop_oneof![
        4 => (0..400_u64).prop_map(Step::Wait),
        8 => Just(Step::Order),
        8 => Just(Step::Event),
        8 => (any::<usize>(), outcome).prop_map(|(index, outcome)| Step::End(index, outcome)),
        1 => any::<usize>().prop_map(Step::Down),
        1 => Just(Step::Released),
        1 => prop_oneof![Just("a@h"), Just("b@h")].prop_map(Step::NodeDown),
        1 => Just(Step::View),
    ]
}

/// A pair whose messages take any time. Each direction keeps its order.
struct Apart {
    pair: Pair,
    view: ClusterView,
    orders: VecDeque<Action>,
    events: VecDeque<Event>,
    in_flight: Vec<(u32, u32)>,
    stopping: Vec<u32>,
    releasing: Vec<u32>,
}

impl Apart {
    fn poll(&mut self) {
        let orders = self.pair.orders();
        self.orders.extend(orders);
    }

    /// Happens at the source: the follower learns of it at once.
    fn happens(&mut self, event: Event) {
        self.pair.event_of_follower(event.clone());
        self.events.push_back(event);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => {
                self.pair.later(ms);
                self.poll();
            }
            Step::Order => {
                let Some(order) = self.orders.pop_front() else { return };
                let taken = self.pair.follow(&order);
                assert!(taken.is_ok(), "{order:?}: {taken:?}");
                match order {
                    Action::Start { id, attempt, .. } => self.in_flight.push((id.0, attempt)),
                    Action::Release { id } => self.releasing.push(id.0),
                    Action::Finish => {}
                }
            }
            Step::Event => {
                let Some(event) = self.events.pop_front() else { return };
                let taken = self.pair.event_of_leader(event);
                assert!(matches!(taken, Ok(()) | Err(EngineError::Finished)), "{taken:?}");
                self.poll();
            }
            Step::End(index, outcome) if !self.in_flight.is_empty() => {
                let (id, attempt) = self.in_flight.swap_remove(index % self.in_flight.len());
                if outcome == Outcome::Stopping {
                    self.stopping.push(id);
                }
                self.happens(finished(id, attempt, outcome));
            }
            Step::Down(index) if !self.stopping.is_empty() => {
                let id = self.stopping.swap_remove(index % self.stopping.len());
                self.happens(Event::Stopped { id: ServerId(id) });
            }
            Step::Released => {
                if let Some(id) = self.releasing.pop() {
                    self.happens(Event::Released { id: ServerId(id) });
                }
            }
            Step::NodeDown(name) => self.happens(Event::NodeDown(name.into())),
            Step::View => self.happens(Event::View(self.view.clone())),
            Step::End(..) | Step::Down(_) => {}
        }
    }

    fn is_over(&self) -> bool {
        self.pair.follower.0.is_over()
    }

    /// Delivers everything, and ends every attempt well.
    fn settle(&mut self) {
        while !self.orders.is_empty() || !self.events.is_empty() {
            self.step(Step::Order);
            self.step(Step::Event);
        }
        if self.is_over() {
            return;
        }
        (0..self.in_flight.len()).for_each(|_| self.step(Step::End(0, MOVED)));
        (0..self.stopping.len()).for_each(|_| self.step(Step::Down(0)));
        (0..self.releasing.len()).for_each(|_| self.step(Step::Released));
        self.step(Step::View);
        self.step(Step::Wait(100));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_order_is_refused_because_it_crossed_events_on_its_way(
        count in 1..16_usize,
        steps in prop::collection::vec(step(), 0..300),
        max_attempts in 1..4_u32,
        max_concurrency in 1..8_u32,
        rebalance in any::<bool>(),
    ) {
        let goal = if rebalance { Goal::Rebalance } else { Goal::Drain };
        let config = Config {
            goal,
            min_servers: 1,
            max_attempts,
            max_concurrency,
            timeout_ms: 3_600_000,
            wait_for_lost_ms: 1_000,
            ..config()
        };
        let view = rebalanced(count as u64);
        let mut apart = Apart {
            pair: Pair::on(view.clone(), &config, &servers(count)),
            view,
            orders: VecDeque::new(),
            events: VecDeque::new(),
            in_flight: Vec::new(),
            stopping: Vec::new(),
            releasing: Vec::new(),
        };
        apart.poll();
        for step in steps {
            if apart.is_over() {
                break;
            }
            apart.step(step);
        }
        let mut turns = 0;
        while !apart.is_over() {
            apart.settle();
            turns += 1;
            prop_assert!(turns < 1_000, "the drain does not end");
        }
        let (led, followed) = (apart.pair.leader.0.results(), apart.pair.follower.0.results());
        let moved = |results: &[u8]| results.iter().map(|result| *result == 0).collect::<Vec<_>>();
        prop_assert_eq!(moved(&led), moved(&followed));
        let report = apart.pair.report_of_follower();
        prop_assert_eq!(report.moved + report.left.values().sum::<u64>(), report.total);
    }
}
