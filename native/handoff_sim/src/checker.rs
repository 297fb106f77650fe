//! Checks the engine's guarantees from outside, on every action and every answer.
//!
//! Guarantee: the checker uses nothing of the engine's placement, ledger or limiter. It checks against the
//! views that the drain received and the true state of the simulated world.
//!
//! | rule | guarantee |
//! |---|---|
//! | [`Rule::Target`] | the target is connected, healthy, not draining, sticky-open and not the source, by
//! the drain's last view |
//! | [`Rule::Limit`] | a capacity limit holds for what was reported plus everything sent since then |
//! | [`Rule::Ceiling`] | attempts in flight, in total and per target, and servers that are down stay within
//! their ceilings |
//! | [`Rule::Deadline`] | the drain ends by its deadline, and no attempt gets more time than that |
//! | [`Rule::Displaced`] | every server that was stopped is placed or released |
//! | [`Rule::Counters`] | counters never fall, their sum is the total, results agree with the events |
//! | [`Rule::Protocol`] | valid events are accepted, actions are valid, wake-ups are in the future, no action
//! follows the end |
//! | [`Rule::Complete`] | in a run without faults, every server that has a target is moved |
//! | [`Rule::State`] | a server is stopped only when its state is in the store, or is written by the stop |
//! | [`Rule::Share`] | a rebalance moves no more than its node's excess, to nodes below their share, while no
//! node drains |
//! | [`Rule::Panic`] | nothing panics |

pub mod ledger;
mod promise;
pub mod share;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use handoff_core::time::Micros;
use handoff_core::{ClusterView, Config, Goal, NodeView, Outcome, Progress};

use crate::cluster::NodeIndex;

/// A guarantee, see the table in the module documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table in the module documentation says what each is")]
pub enum Rule {
    Target,
    Limit,
    Ceiling,
    Deadline,
    Displaced,
    Counters,
    Protocol,
    Complete,
    State,
    Share,
    Panic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub at: Micros,
    pub rule: Rule,
    pub detail: String,
}

/// Where a server of the drain is, according to the events that the drain received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Untouched,
    InFlight { target: NodeIndex, attempt: u32, down: bool },
    Stopping,
    Displaced,
    Releasing,
    Decided,
}

#[derive(Debug)]
pub struct Checker {
    source: String,
    config: Config,
    started: Micros,
    deadline: Micros,
    view: ClusterView,
    /// Positions in the view by name.
    known: HashMap<String, usize>,
    lost: BTreeSet<String>,
    /// The sticky signature of each server.
    sticky_of: Vec<u32>,
    stages: Vec<Stage>,
    starts: Vec<u32>,
    /// Whether attempts of this drain have stopped the server, or may have.
    touched: Vec<bool>,
    in_flight: u32,
    in_flight_to: BTreeMap<NodeIndex, u32>,
    /// Servers that were stopped or told to stop and are not in flight: displaced, stopping, releasing.
    displaced: u32,
    stopping: u32,
    releasing: u32,
    previous: Progress,
    cancelled: bool,
    polls: u64,
    /// The shares; only for a rebalance.
    shares: Option<share::Shares>,
    pub broken: Vec<Violation>,
}

/// The most violations that are kept of one drain. The first ones are the most useful.
const TOLD: usize = 8;

impl Checker {
    /// Checks a drain that starts now, of servers with these sticky signatures.
    pub fn new(config: &Config, sticky_of: Vec<u32>, now: Micros) -> Self {
        let total = sticky_of.len();
        Checker {
            sticky_of,
            source: config.source.name.clone(),
            config: config.clone(),
            started: now,
            deadline: now + Micros::from_millis(config.timeout_ms),
            view: ClusterView::default(),
            known: HashMap::new(),
            lost: BTreeSet::new(),
            stages: vec![Stage::Untouched; total],
            starts: vec![0; total],
            touched: vec![false; total],
            in_flight: 0,
            in_flight_to: BTreeMap::new(),
            displaced: 0,
            stopping: 0,
            releasing: 0,
            previous: Progress::default(),
            cancelled: false,
            polls: 0,
            shares: None,
            broken: Vec::new(),
        }
    }

    pub fn shown(&mut self, view: ClusterView) {
        self.known = view.nodes.iter().map(|node| node.name.clone()).zip(0..).collect();
        self.lost.clear();
        self.view = view;
        if self.config.goal == Goal::Rebalance && self.shares.is_none() {
            self.shares = Some(share::Shares::of(&self.view, &self.config));
        }
    }

    /// Records that the drain shares its ledger, so it knows more than its own views.
    pub fn shares_a_ledger(&mut self) {
        self.shares.iter_mut().for_each(share::Shares::knows_more);
    }

    /// Records that the drain receives the event that a node is gone.
    pub fn told_lost(&mut self, name: &str) {
        self.lost.insert(name.to_owned());
    }

    pub fn told_cancelled(&mut self) {
        self.cancelled = true;
    }

    /// Records that the drain receives the outcome of an attempt.
    pub fn told_outcome(&mut self, id: u32, outcome: &Outcome) {
        let Stage::InFlight { target, down, .. } = self.stages[id as usize] else { return };
        self.in_flight -= 1;
        if let Some(count) = self.in_flight_to.get_mut(&target) {
            *count -= 1;
        }
        let next = match outcome {
            Outcome::Moved { .. } | Outcome::Gone | Outcome::LostRace | Outcome::NotStorable => Stage::Decided,
            Outcome::RetrySame | Outcome::Displaced(_) | Outcome::NotStored | Outcome::StopFailed => Stage::Displaced,
            Outcome::Stopping => Stage::Stopping,
            Outcome::Untouched(_) if down => Stage::Displaced,
            Outcome::Untouched(_) => Stage::Untouched,
        };
        self.touched[id as usize] = next != Stage::Untouched;
        let stays = next == Stage::Untouched || (*outcome == Outcome::NotStorable && !down);
        if let Some(shares) = self.shares.as_mut().filter(|_| stays) {
            shares.stays();
        }
        self.enter(id, next);
    }

    /// Records that the drain receives the event that a stopping server has ended.
    pub fn told_stopped(&mut self, id: u32) {
        self.enter(id, Stage::Displaced);
    }

    /// Records that the drain receives the event that a reservation is cleared.
    pub fn told_released(&mut self, id: u32) {
        self.enter(id, Stage::Decided);
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn started(&self) -> Micros {
        self.started
    }

    pub fn breach(&mut self, at: Micros, rule: Rule, detail: String) {
        if self.broken.len() < TOLD {
            self.broken.push(Violation { at, rule, detail: format!("{}: {detail}", self.source) });
        }
    }

    /// Moves a server to its next stage and keeps the counts.
    fn enter(&mut self, id: u32, next: Stage) {
        let old = std::mem::replace(&mut self.stages[id as usize], next);
        for (stage, step) in [(old, -1), (next, 1)] {
            let count = match stage {
                Stage::Displaced => &mut self.displaced,
                Stage::Stopping => &mut self.stopping,
                Stage::Releasing => &mut self.releasing,
                Stage::Untouched | Stage::InFlight { .. } | Stage::Decided => continue,
            };
            *count = count.saturating_add_signed(step);
        }
    }

    fn node(&self, name: &str) -> Option<&NodeView> {
        self.known.get(name).map(|index| &self.view.nodes[*index])
    }
}
