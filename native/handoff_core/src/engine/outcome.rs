//! Handles the outcome of an attempt: for the server, its target, the store, the limiter and the breaker.
//!
//! Guarantee: every outcome removes its assignment from the ledger or turns it into an arrival, returns its
//! permit, and moves its server to exactly one next stage. What each cause of a failure means is decided only
//! here:
//!
//! | blame | the server | the target | the store | the breaker |
//! |---|---|---|---|---|
//! | `Target` | charged, another target | rests, `Cooldown` | took the write of a server that was stopped | one incident |
//! | `Target`, its connection was lost meanwhile | not charged, any target | - | the same | - |
//! | `Server`, stopped: it did not start elsewhere | charged, another target | - | the same | its module's |
//! | `Server`, still running | charged | - | - | - |
//! | `Store`, `NotStored` | not charged, after a pause any target | - | rests, then one probe, `StoreHealth` | - |
//! | `Store`, but it served other targets since it began to fail this one | as `Target` | as `Target` | as `Target` | one incident |
//! | `Store`, but it served other servers since it failed this one | charged | - | - | - |
//! | `StopFailed` | charged only when it had been stopped before | - | - | - |
//! | `Unknown` | charged, another target | - | - | one incident |
//! | `NotStorable`, `Gone`, `LostRace` | decided | - | - | - |
//!
//! Charged: the attempt counts against `max_attempts`. The breaker counts only failures that predict failures
//! of other servers. A failed start predicts only failures of servers of the same module, which may be broken
//! in the release of the target. `DurableHandoff.Host.Outcome` maps DurableServer's answers to these causes.

use crate::breaker::Breaker;
use crate::engine::Engine;
use crate::engine::server::{Fate, Server, Stage};
use crate::event::{Blame, EngineError, Outcome};
use crate::ids::{ModuleId, NodeId, ServerId};
use crate::ledger::Ledger;
use crate::limiter::Verdict;
use crate::reason::Reason;
use crate::shared::Shared;
use crate::time::Micros;

/// How many times a target's registry may still have the stopped server before that counts as a failure of
/// the target. With the pauses below that is about 300 ms, far longer than a registry broadcast takes.
const MAX_REPEATS: u32 = 8;
/// The first pause before the same target is asked again, while the server is stopped. Each further one is twice
/// as long, up to 2 to the power of [`MOST_REPEAT_DOUBLINGS`]. The stop was broadcast before the start was
/// requested, so it usually arrives within a few milliseconds.
const REPEAT_PAUSE: Micros = Micros::from_millis(4);
const MOST_REPEAT_DOUBLINGS: u32 = 4;
/// The pause before an attempt that did nothing, or failed in the store, is tried again; doubled each time.
const RETRY_PAUSE: Micros = Micros::from_millis(50);

impl Engine {
    pub(super) fn attempt_finished(
        &mut self,
        now: Micros,
        id: ServerId,
        attempt: u32,
        outcome: Outcome,
        latency: Micros,
        shared: &mut Shared,
    ) -> Result<(), EngineError> {
        let over = self.is_over();
        let Some(&Server { stage: Stage::InFlight { target, started, permit }, starts, stopped_at, .. }) =
            self.active.get(&id)
        else {
            return Err(EngineError::Unexpected { id });
        };
        if starts != attempt {
            return Err(EngineError::Unexpected { id });
        }
        let outcome = self.of_store_or_target(target, outcome, now);
        shared.limiter.on_finish(now, permit, latency, verdict(&outcome, stopped_at.is_some()));
        self.tally.in_flight -= 1;
        let module = self.module(id);
        let arrived_at = match &outcome {
            Outcome::Moved { node: None } => Some(target),
            Outcome::Moved { node: Some(name) } => Some(shared.names.intern(name)),
            _ => None,
        };
        self.count_at(target, arrived_at, module, now, &mut shared.ledger);
        if over {
            // The drain ended without waiting for this attempt, and its server was counted as left then. Only
            // the state shared with other drains is updated.
            self.active.remove(&id);
            return Err(EngineError::Finished);
        }
        self.tell_store(id, &outcome, started, now);
        match outcome {
            Outcome::Moved { .. } => self.moved(id, target, arrived_at.unwrap_or(target), started, now),
            Outcome::RetrySame => self.retry_same(id, target, started, now, &mut shared.ledger),
            Outcome::Stopping => self.stopping(id, started),
            Outcome::Displaced(blame) => self.displaced_by(id, target, blame, started, now),
            Outcome::Untouched(blame) => self.untouched(id, target, blame, started, now),
            Outcome::NotStored => {
                self.not_stored(id);
                self.displaced_by(id, target, Blame::Store, started, now);
            }
            Outcome::StopFailed => self.stop_failed(id, started, now),
            Outcome::NotStorable => {
                self.tally.failures += 1;
                self.decide(id, Fate::Left(Reason::NotStorable));
            }
            Outcome::Gone => self.decide(id, Fate::Left(Reason::Gone)),
            Outcome::LostRace => self.decide(id, Fate::Left(Reason::LostRace)),
        }
        Ok(())
    }

    /// Counts a server at the node where it is now, no longer at its target.
    fn count_at(
        &mut self,
        target: NodeId,
        arrived_at: Option<NodeId>,
        module: ModuleId,
        now: Micros,
        ledger: &mut Ledger,
    ) {
        if arrived_at != Some(target) {
            ledger.withdraw(target, module);
            self.rebalance_takes_back(target);
        }
        if let Some(node) = arrived_at {
            if node != target {
                ledger.assign(node, module);
                self.rebalance_sends(node);
            }
            ledger.arrive(node, module, now);
        }
    }

    pub(super) fn stopped(&mut self, id: ServerId, now: Micros) -> Result<(), EngineError> {
        match self.active.get(&id).map(|server| &server.stage) {
            Some(Stage::Stopping) => {
                self.tally.stopping -= 1;
                self.displace(id, now, now);
                Ok(())
            }
            _ => Err(EngineError::Unexpected { id }),
        }
    }

    pub(super) fn released(&mut self, id: ServerId) -> Result<(), EngineError> {
        match self.active.get(&id).map(|server| &server.stage) {
            Some(Stage::Releasing { reason }) => {
                let fate = Fate::Left(*reason);
                self.tally.releasing -= 1;
                self.decide(id, fate);
                Ok(())
            }
            _ => Err(EngineError::Unexpected { id }),
        }
    }

    /// Appends a server to the queue of displaced servers.
    pub(super) fn displace(&mut self, id: ServerId, now: Micros, ready: Micros) {
        if let Some(server) = self.active.get_mut(&id) {
            server.displaced_at = server.stopped_at.unwrap_or(now);
            server.stage = Stage::Displaced { ready, pinned: None };
            self.displaced.insert((server.displaced_at, id));
        }
    }

    fn moved(&mut self, id: ServerId, target: NodeId, node: NodeId, started: Micros, now: Micros) {
        self.cooldowns.succeeded(target);
        self.breaker.succeeded();
        if let Some(breaker) = self.modules.get_mut(&self.placement.class(self.classes[id.index()] as usize).module) {
            breaker.succeeded();
        }
        let server = self.active.get(&id);
        if !server.is_some_and(|server| server.not_stored) {
            let stopped_at = server.and_then(|server| server.stopped_at).unwrap_or(started);
            self.tally.gaps.record(now.since(stopped_at));
            *self.tally.targets.entry(node).or_insert(0) += 1;
        }
        self.decide(id, Fate::Moved);
    }

    /// The target has not seen the stop yet. The same target is tried again soon, and the server keeps its
    /// reserved slot there.
    fn retry_same(&mut self, id: ServerId, target: NodeId, started: Micros, now: Micros, ledger: &mut Ledger) {
        let Some(server) = self.active.get_mut(&id) else { return };
        let repeats = server.lagged.filter(|(lagged, _)| *lagged == target).map_or(0, |(_, repeats)| repeats);
        if repeats >= MAX_REPEATS {
            return self.displaced_by(id, target, Blame::Target, started, now);
        }
        let pause = REPEAT_PAUSE.times(1 << repeats.min(MOST_REPEAT_DOUBLINGS));
        server.lagged = Some((target, repeats + 1));
        server.stopped_at.get_or_insert(started);
        self.displace(id, now, now + pause);
        self.pin(id, target, ledger);
    }

    fn stopping(&mut self, id: ServerId, started: Micros) {
        if let Some(server) = self.active.get_mut(&id) {
            server.stopped_at.get_or_insert(started);
            server.stage = Stage::Stopping;
            self.tally.stopping += 1;
        }
    }

    /// The server does not count as moved wherever it starts again.
    fn not_stored(&mut self, id: ServerId) {
        if let Some(server) = self.active.get_mut(&id) {
            server.not_stored = true;
        }
    }

    /// The server's own `terminate` failed. That can happen only once, so a repeated outcome is charged, to
    /// end the series.
    fn stop_failed(&mut self, id: ServerId, started: Micros, now: Micros) {
        self.not_stored(id);
        self.tally.failures += 1;
        let Some(server) = self.active.get_mut(&id) else { return };
        server.charged += u32::from(server.stopped_at.is_some());
        server.stopped_at.get_or_insert(started);
        self.displace(id, now, now);
    }

    fn displaced_by(&mut self, id: ServerId, target: NodeId, blame: Blame, started: Micros, now: Micros) {
        if blame == Blame::Target && self.was_lost(target, started) {
            self.tally.failures += 1;
            if let Some(server) = self.active.get_mut(&id) {
                server.stopped_at.get_or_insert(started);
            }
            return self.displace(id, now, now);
        }
        self.failed(target, blame, started, now);
        if blame == Blame::Server {
            let limits = (self.config.max_consecutive_failures, self.config.max_failure_ratio);
            let breaker = self.modules.entry(self.module(id)).or_insert_with(|| Breaker::new(limits.0, limits.1));
            breaker.failed();
        }
        let pause = self.charge(id, blame, now);
        let Some(server) = self.active.get_mut(&id) else { return };
        server.stopped_at.get_or_insert(started);
        if blame == Blame::Store {
            return self.displace(id, now, now + pause);
        }
        server.excluded.push(target);
        self.displace(id, now, now);
    }

    fn untouched(&mut self, id: ServerId, target: NodeId, blame: Blame, started: Micros, now: Micros) {
        let ready = if blame == Blame::Target && self.was_lost(target, started) {
            self.tally.failures += 1;
            now
        } else {
            self.failed(target, blame, started, now);
            now + self.charge(id, blame, now)
        };
        let Some(server) = self.active.get_mut(&id) else { return };
        match server.stopped_at {
            // An earlier attempt had stopped the server, so it is still displaced.
            Some(_) => self.displace(id, now, ready),
            None => server.stage = Stage::Untouched { ready },
        }
    }

    /// Whether the connection to a target was lost since an attempt began. Such a failure is charged to
    /// neither the target nor the server; no server goes there before the node is connected again.
    fn was_lost(&self, target: NodeId, started: Micros) -> bool {
        self.lost.get(&target).is_some_and(|&at| at >= started)
    }

    /// Counts a failed attempt, and an incident if the failure predicts failures of other servers.
    fn failed(&mut self, target: NodeId, blame: Blame, started: Micros, now: Micros) {
        self.tally.failures += 1;
        let incident = match blame {
            Blame::Target => self.cooldowns.failed(target, started, now),
            Blame::Unknown => true,
            Blame::Server | Blame::Store => false,
        };
        if incident {
            self.breaker.failed();
        }
    }

    /// Charges a failed attempt to its server, and returns the pause before the next attempt. A failure of
    /// the store is charged only if the store served other servers between two failures of this one, because
    /// then the cause is this server's object.
    fn charge(&mut self, id: ServerId, blame: Blame, now: Micros) -> Micros {
        let Some(server) = self.active.get_mut(&id) else { return Micros::ZERO };
        if blame == Blame::Store {
            server.charged += u32::from(server.refused);
            server.store_failures += 1;
            server.store_failed_at = Some(now);
            return RETRY_PAUSE.times(1 << (server.store_failures - 1).min(6));
        }
        server.charged += 1;
        RETRY_PAUSE.times(1 << (server.charged - 1).min(6))
    }

    /// Whether a failure of the store counts as one of the target: if the store serves other targets but not
    /// this one, this node's access to the store is broken.
    fn of_store_or_target(&mut self, target: NodeId, outcome: Outcome, now: Micros) -> Outcome {
        match outcome {
            Outcome::Moved { node: None } => self.unserved.served(target),
            Outcome::Displaced(Blame::Store) if self.unserved.failed(target, &self.store, now) => {
                return Outcome::Displaced(Blame::Target);
            }
            _ => {}
        }
        outcome
    }

    /// What an outcome shows about the store. If a server was stopped in this attempt and is displaced for a
    /// reason other than the store, its final write succeeded.
    fn tell_store(&mut self, id: ServerId, outcome: &Outcome, started: Micros, now: Micros) {
        let Some(server) = self.active.get_mut(&id) else { return };
        let stopped_now = server.stopped_at.is_none();
        match outcome {
            Outcome::Moved { .. } => self.store.served(id, started),
            Outcome::RetrySame | Outcome::Displaced(Blame::Target | Blame::Server) if stopped_now => {
                self.store.served(id, started);
            }
            Outcome::Displaced(Blame::Store) | Outcome::Untouched(Blame::Store) | Outcome::NotStored => {
                server.refused |= server.store_failed_at.is_some_and(|at| self.store.served_since(at));
                if server.refused {
                    self.store.ended(id);
                } else {
                    self.store.failed(id, started, now);
                }
            }
            _ => self.store.ended(id),
        }
    }
}

/// The effect of an outcome on the limiter. `stopped_before`: an earlier attempt had stopped the server.
fn verdict(outcome: &Outcome, stopped_before: bool) -> Verdict {
    match outcome {
        Outcome::Moved { .. } if stopped_before => Verdict::ServedAfterStop,
        Outcome::Moved { .. } => Verdict::Served,
        Outcome::Displaced(Blame::Store) | Outcome::Untouched(Blame::Store | Blame::Unknown) | Outcome::NotStored => {
            Verdict::Overload
        }
        Outcome::Displaced(_)
        | Outcome::Untouched(_)
        | Outcome::RetrySame
        | Outcome::Stopping
        | Outcome::Gone
        | Outcome::LostRace
        | Outcome::StopFailed
        | Outcome::NotStorable => Verdict::Neutral,
    }
}
