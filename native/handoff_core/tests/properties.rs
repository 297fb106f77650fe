//! The engine keeps its guarantees under any events in any order.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Attempt, Drive, WALL, config, limit, node};
use handoff_core::limiter::Concurrency;
use handoff_core::time::Micros;
use handoff_core::{
    Blame, ClusterView, Config, Event, ModuleId, NodeView, Outcome, Scope, ServerId, ServerSpec, StickyId,
};
use proptest::prelude::*;

/// The next event.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    /// Ends the attempt at this position (modulo those in flight).
    End(usize, Outcome),
    /// Ends the stopping server at this position.
    Down(usize),
    View(Vec<NodeView>),
    NodeDown(usize),
    Acknowledge,
    Cancel,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let blame = || prop_oneof![Just(Blame::Target), Just(Blame::Server), Just(Blame::Store), Just(Blame::Unknown)];
    prop_oneof![
        12 => Just(Outcome::Moved { node: None }),
        1 => (0..4_usize).prop_map(|index| Outcome::Moved { node: Some(name(index)) }),
        2 => Just(Outcome::RetrySame),
        1 => Just(Outcome::Stopping),
        4 => blame().prop_map(Outcome::Displaced),
        1 => blame().prop_map(Outcome::Untouched),
        1 => Just(Outcome::NotStored),
        1 => Just(Outcome::StopFailed),
        1 => Just(Outcome::NotStorable),
        1 => Just(Outcome::Gone),
        1 => Just(Outcome::LostRace),
    ]
}

fn name(index: usize) -> String {
    format!("n{index}@h")
}

fn nodes() -> impl Strategy<Value = Vec<NodeView>> {
    let one = (
        0..4_u32,
        0..8_u32,
        any::<bool>(),
        prop::option::of(0..20_u32),
        prop::option::of(0..9_u32),
        -9_000..60_000_i64,
    );
    prop::collection::vec(one, 0..5).prop_map(|rows| {
        rows.into_iter()
            .enumerate()
            .map(|(index, (draining, connected, limited, total, module, age_ms))| {
                let mut capacity = Vec::new();
                if limited {
                    capacity.extend(total.map(|current| limit(Scope::Total, current, 20)));
                    capacity.extend(module.map(|current| limit(Scope::Module(ModuleId(0)), current, 9)));
                }
                NodeView {
                    draining: draining == 0,
                    connected: connected > 0,
                    stamp_ms: WALL - age_ms,
                    capacity,
                    ..node(&name(index))
                }
            })
            .collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..400_u64).prop_map(Step::Wait),
        12 => (any::<usize>(), outcome()).prop_map(|(index, outcome)| Step::End(index, outcome)),
        2 => any::<usize>().prop_map(Step::Down),
        1 => nodes().prop_map(Step::View),
        1 => (0..5_usize).prop_map(Step::NodeDown),
        2 => Just(Step::Acknowledge),
        // Rare, because otherwise every drain would end early.
        1 => (0..20_u8).prop_map(|dice| if dice == 0 { Step::Cancel } else { Step::Wait(1) }),
    ]
}

fn servers() -> impl Strategy<Value = Vec<ServerSpec>> {
    let one = (0..2_u32, -3..3_i32);
    prop::collection::vec(one, 0..60).prop_map(|specs| {
        specs
            .into_iter()
            .map(|(module, priority)| ServerSpec { module: ModuleId(module), sticky: StickyId(0), priority })
            .collect()
    })
}

/// The state of the drain as the test tracks it, independently of the engine.
struct World {
    drive: Drive,
    view: BTreeMap<String, NodeView>,
    /// The first report of each node, which the node repeats.
    reports: BTreeMap<String, NodeView>,
    in_flight: Vec<Attempt>,
    stopping: Vec<u32>,
    /// Servers that an attempt has stopped and that were not moved, released or lost since.
    displaced: BTreeSet<u32>,
    /// Arrivals per node since its view, by module.
    sent: BTreeMap<(String, u32), f64>,
    modules: Vec<u32>,
    ceiling: usize,
}

impl World {
    fn poll(&mut self) {
        let started = self.drive.poll();
        for attempt in started {
            let target = &self.view[&attempt.target];
            assert!(target.connected && !target.draining, "{attempt:?} to a node that is leaving");
            let module = self.modules[attempt.id as usize];
            *self.sent.entry((attempt.target.clone(), module)).or_insert(0.0) += 1.0;
            let sent = |module| self.sent.get(&(attempt.target.clone(), module)).copied().unwrap_or(0.0);
            for capacity in &target.capacity {
                let projected = match capacity.scope {
                    Scope::Total => sent(0) + sent(1),
                    Scope::Module(ModuleId(counted)) if counted == module => sent(counted),
                    Scope::Module(_) => continue,
                };
                assert!(capacity.current + projected <= capacity.limit, "{attempt:?} exceeds {capacity:?}");
            }
            self.in_flight.push(attempt);
        }
        let mut down = self.displaced.clone();
        down.extend(self.in_flight.iter().map(|attempt| attempt.id));
        down.extend(&self.stopping);
        assert!(down.len() <= self.ceiling, "more than max_concurrency are down or about to be: {down:?}");
        for id in &self.drive.released {
            assert!(self.displaced.contains(id), "server {id} is released but was never stopped");
        }
        let progress = self.drive.engine.progress(&self.drive.shared);
        if !progress.finished {
            let sum = progress.pending
                + progress.in_flight
                + progress.displaced
                + progress.stopping
                + progress.moved
                + progress.left
                + self.drive.released.len() as u64;
            assert_eq!(sum, progress.total, "{progress:?}");
        }
    }

    fn end(&mut self, attempt: &Attempt, outcome: Outcome) {
        let outcome = match outcome {
            // A node without a report has no limit to check.
            Outcome::Moved { node: Some(other) } if !self.reports.contains_key(&other) => Outcome::Moved { node: None },
            other => other,
        };
        match &outcome {
            Outcome::Moved { .. } | Outcome::Gone | Outcome::LostRace | Outcome::NotStorable => {
                self.displaced.remove(&attempt.id);
            }
            Outcome::RetrySame | Outcome::Displaced(_) | Outcome::NotStored | Outcome::StopFailed => {
                self.displaced.insert(attempt.id);
            }
            Outcome::Stopping => self.stopping.push(attempt.id),
            Outcome::Untouched(_) => {}
        }
        if outcome != (Outcome::Moved { node: None }) {
            let module = self.modules[attempt.id as usize];
            *self.sent.entry((attempt.target.clone(), module)).or_insert(0.0) -= 1.0;
            if let Outcome::Moved { node: Some(other) } = &outcome {
                *self.sent.entry((other.clone(), module)).or_insert(0.0) += 1.0;
            }
        }
        self.drive.finish(attempt, outcome);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.drive.later(ms),
            Step::End(index, outcome) if !self.in_flight.is_empty() => {
                let attempt = self.in_flight.swap_remove(index % self.in_flight.len());
                self.end(&attempt, outcome);
            }
            Step::Down(index) if !self.stopping.is_empty() => {
                let id = self.stopping.swap_remove(index % self.stopping.len());
                self.displaced.insert(id);
                self.drive.event(Event::Stopped { id: ServerId(id) }).expect("stopping");
            }
            Step::View(mut nodes) => {
                let elapsed = i64::try_from(self.drive.now.as_millis()).expect("small") - 1_000;
                nodes.iter_mut().for_each(|node| node.stamp_ms += elapsed);
                // These reports never include the servers sent, which is the harder case for limits.
                for node in &mut nodes {
                    let known = self.reports.entry(node.name.clone()).or_insert_with(|| node.clone());
                    node.stamp_ms = node.stamp_ms.min(known.stamp_ms);
                    node.capacity.clone_from(&known.capacity);
                }
                self.view = nodes.iter().map(|node| (node.name.clone(), node.clone())).collect();
                let view = ClusterView { now_ms: WALL + elapsed, nodes };
                self.drive.see(view);
            }
            Step::NodeDown(index) => {
                if let Some(node) = self.view.get_mut(&name(index)) {
                    node.connected = false;
                }
                self.drive.lose(&name(index));
            }
            Step::Acknowledge => {
                for id in &self.drive.released {
                    self.displaced.remove(id);
                }
                self.drive.acknowledge_releases();
            }
            Step::Cancel => self.drive.event(Event::Cancel).expect("running"),
            Step::End(..) | Step::Down(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_breaks_a_promise(
        specs in servers(),
        first in nodes(),
        steps in prop::collection::vec(step(), 0..200),
        ceiling in 1..12_u32,
        cap in prop::option::of(1..4_u32),
        adaptive in any::<bool>(),
        timeout_ms in 500..20_000_u64,
    ) {
        let config = Config {
            max_concurrency: ceiling,
            max_concurrency_per_target: cap,
            concurrency: if adaptive { Concurrency::Adaptive } else { Concurrency::Fixed },
            timeout_ms,
            modules: 2,
            ..config()
        };
        let view = ClusterView { now_ms: WALL, nodes: first.clone() };
        let deadline = Micros::from_millis(1_000 + timeout_ms);
        let named: BTreeMap<String, NodeView> = first.into_iter().map(|node| (node.name.clone(), node)).collect();
        let mut world = World {
            drive: Drive::new(config, &specs, view),
            reports: named.clone(),
            view: named,
            in_flight: Vec::new(),
            stopping: Vec::new(),
            displaced: BTreeSet::new(),
            sent: BTreeMap::new(),
            modules: specs.iter().map(|spec| spec.module.0).collect(),
            ceiling: ceiling as usize,
        };
        world.poll();
        for step in steps {
            if world.drive.finished {
                break;
            }
            world.step(step);
            world.poll();
        }
        // Without further events the drain ends by its deadline.
        while !world.drive.finished {
            world.drive.now = world.drive.wake.expect("not finished, so it wants to be woken").max(world.drive.now);
            world.poll();
            prop_assert!(world.drive.finished || world.drive.now < deadline, "the deadline has passed");
            if !world.drive.finished {
                world.step(Step::Acknowledge);
            }
        }
        let report = world.drive.report();
        prop_assert_eq!(report.moved + report.left.values().sum::<u64>(), report.total);
        prop_assert!(world.drive.engine.results().iter().all(|result| *result != u8::MAX));
    }
}
