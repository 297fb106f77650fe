//! The drain engine: which server goes where now, and when to stop trying.
//!
//! Guarantees
//! - The same calls with the same arguments give the same actions, whichever host runs it.
//! - At most `max_concurrency` servers are in flight, stopping, displaced or being released, so at most that many servers
//!   are unavailable at once.
//! - Every displaced server is started elsewhere or released. No attempt starts that would usually end after
//!   the deadline. [`Action::Finish`] comes at the deadline at the latest.
//! - An event that does not fit is refused and changes nothing.
//! - It can follow another engine: [`Engine::follow`] applies what the other one decided, and a later
//!   [`Engine::poll`] continues from there.
//!
//! The life of one server:
//!
//! ```text
//!   pending ──start──▶ in flight ──moved──────────────────▶ moved
//!      ▲                │  │  │
//!      └──untouched─────┘  │  └──gone, lost race──────────▶ left
//!                          ├──stopping──▶ stopping ──down─┐
//!                          │                              ▼
//!                          └──displaced, retry same──▶ displaced ──start──▶ in flight
//!                                                         │
//!                                                         └──give up──▶ releasing ──released──▶ left
//! ```

pub(crate) mod classes;
mod ending;
mod follow;
mod outcome;
pub(crate) mod rebalance;
mod schedule;
mod server;

use std::collections::{BTreeMap, BTreeSet};

use crate::breaker::Breaker;
use crate::config::{Config, Goal};
use crate::cooldown::Cooldowns;
use crate::event::{Action, EngineError, Event, Poll};
use crate::ids::{ModuleId, NodeId, ServerId, StickyId};
use crate::pace::Pace;
use crate::pending::Pending;
use crate::placement::Placement;
use crate::quantiles::Quantiles;
use crate::reason::Reason;
use crate::report::{AtATime, Ended, Progress, Report, WaitsFor};
use crate::shared::Shared;
use crate::store_health::{Gate, StoreHealth};
use crate::time::Micros;
use crate::unserved::Unserved;
use crate::view::ClusterView;

use classes::classify;
use rebalance::Rebalance;
use server::{Fate, Server};

/// The assumed duration of an attempt before any has finished: four round trips to an object store in the
/// same region.
const ASSUMED_ATTEMPT: Micros = Micros::from_millis(100);
/// The last part of a drain is reserved for clearing reservations: a tenth of the drain, at most this long.
const LONGEST_RESERVE: Micros = Micros::from_millis(1_000);

/// One server of a drain. Servers are in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its module, below [`Config::modules`].
    pub module: ModuleId,
    /// Its sticky signature, an index into [`Config::stickies`].
    pub sticky: StickyId,
    /// Servers of higher priority move first.
    pub priority: i32,
}

/// The phase of the drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for a target until this time. No running server is stopped.
    Waiting(Micros),
    /// Starting attempts.
    Running,
    /// No attempt starts any more. Attempts in flight end.
    Settling(Ended),
    /// Over.
    Over(Ended),
}

/// One drain. See the module documentation.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    phase: Phase,
    /// When the last target was lost, while servers wait for one.
    without_target: Option<Micros>,
    started: Micros,
    ended: Option<Micros>,
    deadline: Micros,
    placement: Placement,
    pending: Pending,
    /// Each server's class, and its fate once decided.
    classes: Vec<u32>,
    fates: Vec<Fate>,
    /// Servers that are neither pending nor decided: at most those that are in flight, displaced, stopping or
    /// waiting.
    active: BTreeMap<ServerId, Server>,
    /// Displaced servers, the longest displaced first, and running ones that may be stopped now.
    displaced: BTreeSet<(Micros, ServerId)>,
    cooldowns: Cooldowns,
    unserved: Unserved,
    /// When the connection to a node was last lost.
    lost: BTreeMap<NodeId, Micros>,
    store: StoreHealth,
    breaker: Breaker,
    /// A breaker for each module whose servers have failed to start elsewhere.
    modules: BTreeMap<ModuleId, Breaker>,
    pace: Pace,
    /// The bounds of a rebalance; `None` in a drain.
    rebalance: Option<Rebalance>,
    /// Whether the drain is counted in [`Shared`].
    counted: bool,
    /// What servers waited for at the last poll.
    waits_for: Option<WaitsFor>,
    tally: Tally,
}

/// Counters of one drain. All but `in_flight`, `stopping` and `releasing` never fall.
#[derive(Debug, Default)]
struct Tally {
    in_flight: u64,
    stopping: u64,
    releasing: u64,
    moved: u64,
    left: BTreeMap<Reason, u64>,
    retried: u64,
    attempts: u64,
    failures: u64,
    highest_in_flight: u32,
    targets: BTreeMap<NodeId, u64>,
    gaps: Quantiles,
}

impl Engine {
    /// A drain of `servers` that starts at `now` on the cluster in `view`.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with every problem of `config`, `servers` and `view`.
    pub fn new(
        config: Config,
        servers: &[ServerSpec],
        view: ClusterView,
        now: Micros,
        shared: &mut Shared,
    ) -> Result<Self, EngineError> {
        let (classes, specs) = classify(&config, servers)?;
        view.validate().map_err(|problems| EngineError::Invalid { problems })?;
        let timeout = Micros::from_millis(config.timeout_ms);
        let mut engine = Engine {
            phase: Phase::Waiting(now),
            without_target: None,
            started: now,
            ended: None,
            deadline: now + timeout,
            pending: Pending::new(classes.len(), &specs),
            placement: Placement::new(classes),
            classes: specs.iter().map(|(class, _)| u32::try_from(*class).unwrap_or(u32::MAX)).collect(),
            fates: vec![Fate::Undecided; servers.len()],
            active: BTreeMap::new(),
            displaced: BTreeSet::new(),
            cooldowns: Cooldowns::default(),
            unserved: Unserved::default(),
            lost: BTreeMap::new(),
            store: StoreHealth::default(),
            breaker: Breaker::new(config.max_consecutive_failures, config.max_failure_ratio),
            modules: BTreeMap::new(),
            pace: Pace::new(config.max_per_second),
            rebalance: None,
            counted: false,
            waits_for: None,
            tally: Tally::default(),
            config,
        };
        engine.look_at(view, now, shared);
        if engine.config.goal == Goal::Rebalance {
            let (placement, names) = (&engine.placement, &mut shared.names);
            engine.rebalance = Some(Rebalance::new(placement, &engine.config, names, &shared.ledger));
        }
        engine.tell_others(false, shared);
        Ok(engine)
    }

    /// Returns the orders for `now`. Call it after every event and at the time that it asks for.
    pub fn poll(&mut self, now: Micros, shared: &mut Shared) -> Poll {
        self.yield_to_drains(shared);
        let poll = self.decide_now(now, shared);
        self.tell_others(false, shared);
        poll
    }

    fn decide_now(&mut self, now: Micros, shared: &mut Shared) -> Poll {
        let mut actions = Vec::new();
        shared.limiter.on_tick(now);
        self.leave_exhausted();
        self.advance(now, shared);
        let mut waits = None;
        let others = !self.pending.is_empty();
        match self.phase {
            Phase::Running => {
                self.pending.reconsider();
                self.retry_untouched(now);
                waits = self.start_displaced(now, others, shared, &mut actions);
                waits = waits.or(self.start_pending(now, shared, &mut actions));
                if self.store.running(now) == Gate::Probe {
                    // No running server has a target, so a displaced server probes the store.
                    waits = waits.or(self.start_displaced(now, false, shared, &mut actions));
                }
            }
            // Displaced servers start, are held for a lost node, or are released.
            Phase::Waiting(_) => {
                waits = self.start_displaced(now, false, shared, &mut actions).or(Some(WaitsFor::Target));
            }
            Phase::Settling(_) | Phase::Over(_) => {}
        }
        self.waits_for = waits.or_else(|| self.retries_wait_for(now));
        if let Phase::Settling(ended) = self.phase {
            self.give_up_displaced(ended.reason(), &mut shared.ledger, &mut actions);
            self.leave_untouched(ended.reason(), |_| true);
        }
        if let Some(ended) = self.over(now, waits.is_some()) {
            self.finish(ended, now, shared);
            actions.push(Action::Finish);
            return Poll { actions, wake: None };
        }
        let wake = (!self.is_over()).then(|| self.next_wake(now, shared));
        Poll { actions, wake }
    }

    /// Handles an event.
    ///
    /// # Errors
    /// [`EngineError::Unexpected`] for a server that is not in the state that the event requires,
    /// [`EngineError::Invalid`] for a view that is not valid, [`EngineError::Finished`] after the end.
    /// Nothing is changed then.
    pub fn on_event(&mut self, now: Micros, event: Event, shared: &mut Shared) -> Result<(), EngineError> {
        let taken = self.take_in(now, event, shared);
        self.tell_others(false, shared);
        taken
    }

    fn take_in(&mut self, now: Micros, event: Event, shared: &mut Shared) -> Result<(), EngineError> {
        if let Event::Finished { id, attempt, outcome, latency } = event {
            return self.attempt_finished(now, id, attempt, outcome, latency, shared);
        }
        if self.is_over() {
            return Err(EngineError::Finished);
        }
        match event {
            Event::Finished { .. } => {}
            Event::Stopped { id } => self.stopped(id, now)?,
            Event::Released { id } => self.released(id)?,
            Event::View(view) => {
                view.validate().map_err(|problems| EngineError::Invalid { problems })?;
                self.look_at(view, now, shared);
                self.refresh_rebalance(shared);
            }
            Event::NodeDown(name) => {
                if let Some(node) = shared.names.get(&name) {
                    self.placement.disconnect(node);
                    self.lost.insert(node, now);
                }
            }
            Event::Cancel => self.phase = Phase::Settling(Ended::Cancelled),
            Event::EndWithin(span) => self.deadline = self.deadline.min(now + span),
            Event::CoordinatorLost => self.coordinator_lost(),
        }
        Ok(())
    }

    /// The current progress of the drain.
    pub fn progress(&self, shared: &Shared) -> Progress {
        let waiting = self.active.values().filter(|server| server.ready().is_some()).count();
        let running = self.active.values().filter(|server| server.waits_running()).count();
        Progress {
            total: self.fates.len() as u64,
            pending: if self.is_over() { 0 } else { (self.pending.len() + running) as u64 },
            in_flight: self.tally.in_flight,
            displaced: (waiting - running) as u64,
            stopping: self.tally.stopping,
            moved: self.tally.moved,
            left: self.tally.left.values().sum(),
            failures: self.tally.failures,
            retried: self.tally.retried,
            limit: self.limit(shared),
            excess: self.rebalance.as_ref().map_or(0, Rebalance::excess),
            waits_for: self.waits_for.filter(|_| self.tally.in_flight == 0 && !self.is_over()),
            finished: self.is_over(),
        }
    }

    /// The summary. It is complete once the drain is over.
    pub fn report(&self, now: Micros, shared: &Shared) -> Report {
        Report {
            total: self.fates.len() as u64,
            moved: self.tally.moved,
            left: self.tally.left.clone(),
            retried: self.tally.retried,
            gap: self.tally.gaps.summary(),
            duration: self.ended.unwrap_or(now).since(self.started),
            targets: self.tally.targets.iter().map(|(id, count)| (shared.names.name(*id).clone(), *count)).collect(),
            concurrency: AtATime { last: self.limit(shared), highest: self.tally.highest_in_flight },
            learnt: shared.limiter.learnt(),
            attempts: self.tally.attempts,
            failures: self.tally.failures,
            ended: match self.phase {
                Phase::Over(ended) => Some(ended),
                _ => None,
            },
            balance: self
                .rebalance
                .as_ref()
                .map(|rebalance| rebalance.report(&self.placement, &self.config, &shared.names, &shared.ledger)),
        }
    }

    /// How many attempts this drain may have in flight. Other drains may let the limiter have more.
    fn limit(&self, shared: &Shared) -> u32 {
        shared.limiter.limit().min(self.config.max_concurrency)
    }

    /// Each server's fate as a byte, in the order of ids: 0 for moved, 255 for undecided, else the code of
    /// the [`Reason`].
    pub fn results(&self) -> Vec<u8> {
        self.fates.iter().map(|fate| fate.code()).collect()
    }

    /// True after [`Action::Finish`].
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// Whether servers of that class are not moved because earlier servers of their module did not start
    /// elsewhere.
    fn given_up(&self, class: usize) -> bool {
        self.modules.get(&self.placement.class(class).module).is_some_and(Breaker::is_open)
    }

    fn module(&self, id: ServerId) -> ModuleId {
        self.placement.class(self.classes[id.index()] as usize).module
    }

    fn look_at(&mut self, view: ClusterView, now: Micros, shared: &mut Shared) {
        self.placement.update(view, now, &mut shared.names, &mut shared.ledger);
    }

    /// The last moment at which an attempt of usual length still ends before the time for clearing
    /// reservations.
    fn last_start(&self, shared: &Shared) -> Micros {
        let usual = shared.limiter.typical_latency().unwrap_or(ASSUMED_ATTEMPT);
        self.deadline - self.reserve() - usual
    }

    fn reserve(&self) -> Micros {
        Micros(Micros::from_millis(self.config.timeout_ms).0 / 10).min(LONGEST_RESERVE)
    }

    /// Moves the drain to its next phase when the time has come.
    fn advance(&mut self, now: Micros, shared: &Shared) {
        if matches!(self.phase, Phase::Waiting(_) | Phase::Running) {
            self.phase = self.wait_for_target(now);
            if self.breaker.is_open() {
                self.phase = Phase::Settling(Ended::Failures);
            } else if now > self.last_start(shared) {
                self.phase = Phase::Settling(Ended::Deadline);
            }
        }
    }

    /// The phase of a drain that is not ending: waiting for a target, or running.
    fn wait_for_target(&mut self, now: Micros) -> Phase {
        let none_waits = self.pending.is_empty() && !self.active.values().any(Server::waits_running);
        if none_waits || self.moves_left() == 0 || self.placement.any_target(&self.config) {
            self.without_target = None;
            return Phase::Running;
        }
        let since = *self.without_target.get_or_insert(now);
        let Config { wait_for_target_ms, wait_for_lost_ms, .. } = self.config;
        let lost = wait_for_lost_ms > wait_for_target_ms && self.placement.any_out_of_reach(&self.config);
        let until = since + Micros::from_millis(if lost { wait_for_lost_ms } else { wait_for_target_ms });
        if now >= until { Phase::Running } else { Phase::Waiting(until) }
    }

    fn decide(&mut self, id: ServerId, fate: Fate) {
        let mut fate = fate;
        if let Some(server) = self.active.remove(&id) {
            self.displaced.remove(&(server.displaced_at, id));
            fate = server.fate(fate);
            let stays = !matches!(fate, Fate::Moved | Fate::Left(Reason::Gone | Reason::LostRace));
            if stays && server.stopped_at.is_none() {
                self.rebalance_keeps();
            }
        }
        self.fates[id.index()] = fate;
        match fate {
            Fate::Moved => self.tally.moved += 1,
            Fate::Left(reason) => *self.tally.left.entry(reason).or_insert(0) += 1,
            Fate::Undecided => {}
        }
    }
}
