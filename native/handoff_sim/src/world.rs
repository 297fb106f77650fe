//! A run: virtual time, nodes, store, servers and drains together.
//!
//! Guarantee: the same scenario gives the same sequence of events. [`Outcome::digest`] is equal for equal
//! runs.
//!
//! The world acts as the Elixir library. It polls after every event and at the time that the engine asks for,
//! runs the attempts ([`rehome`]), refreshes views, and cleans up after attempts that end later than their
//! drain ([`host`]). [`events`] executes the script, [`loss`] ends nodes and connections.

mod events;
mod host;
mod loss;
mod noise;
mod outcome;
mod rehome;
mod target;

use std::collections::BTreeSet;

use handoff_core::time::Micros;
use handoff_core::{Event, Goal, Shared};

use crate::checker::ledger::Ledger;
use crate::checker::{Checker, Violation};
use crate::cluster::{Cluster, Heartbeat, NodeIndex};
use crate::decider::Decider;
use crate::event_queue::EventQueue;
use crate::random::Random;
use crate::scenario::{Scenario, When};
use crate::servers::{ServerIndex, Servers};
use crate::store::Store;

pub use outcome::{DrainOutcome, Outcome};
use rehome::{Attempt, Step};

/// The virtual time at which runs start: so late that events before the start have positive times.
pub const START: Micros = Micros::from_millis(3_600_000);

#[derive(Debug)]
enum Due {
    Script(usize),
    Heartbeat(NodeIndex),
    Seen(NodeIndex, Box<Heartbeat>),
    Refresh(usize),
    Wake(usize),
    Attempt(usize, Step),
    Down { drain: usize, id: u32 },
    Clear { drain: usize, id: u32, server: ServerIndex, tries: u32, tell: bool },
    Cleared { drain: usize, id: u32, server: ServerIndex, tries: u32, tell: bool, ok: bool },
    Lost(NodeIndex),
    Stall,
}

/// Drains that share a ledger and a limiter. A drain without coordination has its own.
#[derive(Debug)]
struct Group {
    shared: Shared,
    ledger: Ledger,
    ceiling: u32,
    in_flight: u32,
    drains: Vec<usize>,
}

/// One drain of the run.
#[derive(Debug)]
struct Drain {
    decider: Decider,
    checker: Checker,
    /// Whether the store has failed an attempt and none has succeeded since then.
    suspect: bool,
    group: usize,
    source: NodeIndex,
    goal: Goal,
    servers: Vec<ServerIndex>,
    /// See [`DrainOutcome::loads`].
    loads: Vec<Option<u32>>,
    /// The earliest wake-up that is entered in the queue.
    armed: Option<Micros>,
    /// The wake-up that the engine asked for last.
    wanted: Option<Micros>,
    over: Option<Micros>,
    /// Since when a drain of the same node waits for this rebalance to end.
    waited_for: Option<Micros>,
    /// Whether the source has ended since the drain began.
    dead: bool,
}

#[derive(Debug)]
pub struct World {
    scenario: Scenario,
    queue: EventQueue<Due>,
    random: Random,
    cluster: Cluster,
    servers: Servers,
    store: Store,
    cores: noise::Cores,
    /// Attempts started so far.
    started: u32,
    attempts: Vec<Option<Attempt>>,
    vacant: Vec<usize>,
    drains: Vec<Drain>,
    groups: Vec<Group>,
    /// Script entries, attempts, stops and releases that are not finished. The run ends without any.
    open: usize,
    /// The servers whose reservation could not be cleared, because the store refused.
    unreleased: BTreeSet<ServerIndex>,
    refused_full: u64,
    gaps: Vec<u64>,
    events: u64,
    digest: u64,
    trace: Option<Vec<String>>,
    broken: Vec<Violation>,
}

pub fn run(scenario: Scenario) -> Outcome {
    World::new(scenario, false).run()
}

/// Runs a scenario to its end and keeps a line for everything that the drains did and received.
pub fn run_traced(scenario: Scenario) -> Outcome {
    World::new(scenario, true).run()
}

impl World {
    fn new(scenario: Scenario, traced: bool) -> World {
        let mut random = Random::new(scenario.seed);
        let mut servers = Servers::default();
        let mut cluster = Cluster::new(scenario.nodes.clone(), scenario.modules, START);
        for index in (0..cluster.len()).filter(|index| scenario.nodes[*index].age_ms >= 0) {
            cluster.start(index, START);
        }
        for load in &scenario.servers {
            for _ in 0..load.count {
                let server = servers.add(load.node, load.module, load.sticky, load.priority);
                server.poisoned = random.chance(scenario.faults.poisoned);
                server.unsynced = random.chance(scenario.faults.unsynced);
                cluster.arrive(load.node, load.module);
            }
        }
        let mut world = World {
            queue: EventQueue::new(START),
            store: Store::new(scenario.store.clone(), START),
            cores: noise::Cores::default(),
            started: 0,
            attempts: Vec::new(),
            vacant: Vec::new(),
            drains: Vec::new(),
            groups: Vec::new(),
            open: 0,
            unreleased: BTreeSet::new(),
            refused_full: 0,
            gaps: Vec::new(),
            events: 0,
            digest: 0xCBF2_9CE4_8422_2325,
            trace: traced.then(Vec::new),
            broken: Vec::new(),
            scenario,
            random,
            cluster,
            servers,
        };
        (0..world.cluster.len()).for_each(|index| world.first_heartbeat(index));
        world.first_stall();
        for (index, (when, _)) in world.scenario.script.clone().into_iter().enumerate() {
            world.open += 1;
            if let When::At(ms) = when {
                world.queue.at(START + Micros::from_millis(ms), Due::Script(index));
            }
        }
        world
    }

    fn run(mut self) -> Outcome {
        while let Some(due) = self.next_due() {
            self.happen(due);
        }
        self.into_outcome()
    }

    /// The next event, until all drains and attempts have ended.
    fn next_due(&mut self) -> Option<Due> {
        let goes_on = self.open > 0 || self.drains.iter().any(|drain| drain.over.is_none());
        let due = goes_on.then(|| self.queue.advance()).flatten()?;
        self.events += 1;
        Some(due)
    }

    fn now(&self) -> Micros {
        self.queue.now()
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Script(index) => self.script(index),
            Due::Heartbeat(node) => self.heartbeat(node),
            Due::Seen(node, heartbeat) => self.cluster.show(node, *heartbeat),
            Due::Refresh(drain) => self.refresh(drain),
            Due::Wake(drain) => self.wake(drain),
            Due::Attempt(token, step) => self.step(token, step),
            Due::Down { drain, id } => self.down(drain, id),
            Due::Clear { drain, id, server, tries, tell } => self.clear(drain, id, server, tries, tell),
            Due::Cleared { drain, id, server, tries, tell, ok } => self.cleared(drain, id, server, tries, tell, ok),
            Due::Lost(node) => self.lost(node),
            Due::Stall => self.stall(),
        }
    }

    /// Records an event for the digest and, if it is kept, for the trace.
    fn note(&mut self, drain: usize, number: u64, line: impl FnOnce() -> String) {
        for part in [self.now().0, drain as u64, number] {
            self.digest = (self.digest ^ part).wrapping_mul(0x0000_0100_0000_01B3);
        }
        let ms = self.now().since(START).0 as f64 / 1_000.0;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{ms:>10.3} {} {}", self.drains[drain].checker.source(), line()));
        }
    }

    /// Passes an event to a drain, then polls it and the drains that share its limiter. The first drain that
    /// is polled gets a free permit, so the order rotates: otherwise the drain whose attempt ended would
    /// always get it, and the others would starve.
    fn tell(&mut self, drain: usize, event: Event) -> bool {
        let taken = self.deliver(drain, event);
        let together = &self.groups[self.drains[drain].group].drains;
        if together.len() > 1 {
            let turn = usize::try_from(self.events).unwrap_or(0) % together.len();
            let mut order = together.clone();
            order.rotate_left(turn);
            order.into_iter().for_each(|other| self.poll(other));
        } else {
            self.poll(drain);
        }
        taken
    }
}
