//! What the end of an attempt means: for the server, its target, the store, the limiter and the breaker.
//!
//! Guarantee: every outcome takes its assignment out of the ledger or turns it into an arrival, gives its permit back, and
//! moves its server to exactly one next stage. Each rule of blame is in one place here.

use crate::engine::Engine;
use crate::engine::server::{Fate, Stage};
use crate::event::{Blame, EngineError, Outcome};
use crate::ids::{NodeId, ServerId};
use crate::ledger::Ledger;
use crate::limiter::Verdict;
use crate::reason::Reason;
use crate::shared::Shared;
use crate::time::Micros;

/// How often a target may not have heard of a stop before that counts as its failure. With the pauses below about 300 ms,
/// far longer than a registry broadcast takes.
const MAX_REPEATS: u32 = 8;
/// The first pause before the same target is asked again; each further one is 5 ms longer (the contract: 20 to 50 ms).
const REPEAT_PAUSE: Micros = Micros::from_millis(20);
const REPEAT_STEP: Micros = Micros::from_millis(5);
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
        let Some(server) = self.active.get_mut(&id) else {
            return Err(EngineError::Unexpected { id });
        };
        let Stage::InFlight { target, started, permit } = server.stage else {
            return Err(EngineError::Unexpected { id });
        };
        if server.starts != attempt {
            return Err(EngineError::Unexpected { id });
        }
        shared.limiter.on_finish(now, permit, latency, verdict(&outcome));
        self.tally.in_flight -= 1;
        let module = self.module(id);
        let arrived_at = match &outcome {
            Outcome::Moved { node: None } => Some(target),
            Outcome::Moved { node: Some(name) } => Some(shared.names.intern(name)),
            _ => None,
        };
        match arrived_at {
            Some(node) if node == target => shared.ledger.arrive(target, module, now),
            Some(node) => {
                shared.ledger.withdraw(target, module);
                shared.ledger.assign(node, module);
                shared.ledger.arrive(node, module, now);
            }
            None => shared.ledger.withdraw(target, module),
        }
        if over {
            // The drain ended without waiting for this attempt, and its server was counted as left then. Only what others
            // share had to be told.
            self.active.remove(&id);
            return Err(EngineError::Finished);
        }
        match outcome {
            Outcome::Moved { .. } => self.moved(id, target, arrived_at.unwrap_or(target), started, now),
            Outcome::RetrySame => self.retry_same(id, target, started, now, &mut shared.ledger),
            Outcome::Stopping => self.stopping(id, started),
            Outcome::Displaced(blame) => self.displaced_by(id, target, blame, started, now),
            Outcome::Untouched => self.untouched(id, now),
            Outcome::Gone => self.decide(id, Fate::Left(Reason::Gone)),
            Outcome::LostRace => {
                // A last write that is lost is what a failing store looks like from here: count it, rest, stop fewer.
                let incident = self.store.failed(started, now);
                self.failed(incident);
                self.decide(id, Fate::Left(Reason::LostRace));
            }
        }
        Ok(())
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

    /// Puts a server into the queue of the displaced, behind those that have been there longer.
    pub(super) fn displace(&mut self, id: ServerId, now: Micros, ready: Micros) {
        if let Some(server) = self.active.get_mut(&id) {
            server.displaced_at = server.stopped_at.unwrap_or(now);
            server.stage = Stage::Displaced { ready, pinned: None };
            self.displaced.insert((server.displaced_at, id));
        }
    }

    fn moved(&mut self, id: ServerId, target: NodeId, node: NodeId, started: Micros, now: Micros) {
        self.cooldowns.succeeded(target);
        self.store.succeeded();
        self.breaker.succeeded();
        let stopped_at = self.active.get(&id).and_then(|server| server.stopped_at).unwrap_or(started);
        self.tally.gaps.record(now.since(stopped_at));
        *self.tally.targets.entry(node).or_insert(0) += 1;
        self.decide(id, Fate::Moved);
    }

    /// The target did not know of the stop yet: there again in a moment, and nobody else gets its place meanwhile.
    fn retry_same(&mut self, id: ServerId, target: NodeId, started: Micros, now: Micros, ledger: &mut Ledger) {
        let Some(server) = self.active.get_mut(&id) else { return };
        if server.repeats >= MAX_REPEATS {
            return self.displaced_by(id, target, Blame::Target, started, now);
        }
        let pause = REPEAT_PAUSE + REPEAT_STEP.times(server.repeats.into());
        server.repeats += 1;
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

    fn displaced_by(&mut self, id: ServerId, target: NodeId, blame: Blame, started: Micros, now: Micros) {
        let incident = match blame {
            Blame::Target => self.cooldowns.failed(target, started, now),
            Blame::Store => self.store.failed(started, now),
            Blame::Server | Blame::Unknown => true,
        };
        self.failed(incident);
        let Some(server) = self.active.get_mut(&id) else { return };
        server.stopped_at.get_or_insert(started);
        server.charged += 1;
        let pause = if blame == Blame::Store {
            RETRY_PAUSE.times(1 << (server.charged - 1).min(6))
        } else {
            server.excluded.push(target);
            Micros::ZERO
        };
        self.displace(id, now, now + pause);
    }

    fn untouched(&mut self, id: ServerId, now: Micros) {
        self.failed(true);
        let max_attempts = self.config.max_attempts;
        let Some(server) = self.active.get_mut(&id) else { return };
        server.charged += 1;
        let exhausted = server.charged >= max_attempts;
        let ready = now + RETRY_PAUSE.times(1 << (server.charged - 1).min(6));
        match server.stopped_at {
            // An earlier attempt had stopped it: it is as displaced as before.
            Some(_) => self.displace(id, now, ready),
            None if exhausted => self.decide(id, Fate::Left(Reason::AttemptsExhausted)),
            None => server.stage = Stage::Untouched { ready },
        }
    }

    /// Counts a failed attempt; the breaker counts incidents.
    fn failed(&mut self, incident: bool) {
        self.tally.failures += 1;
        if incident {
            self.breaker.failed();
        }
    }
}

/// What an outcome tells the limiter about the store.
fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Moved { .. } => Verdict::Served,
        Outcome::Displaced(Blame::Store) | Outcome::LostRace | Outcome::Untouched => Verdict::Overload,
        Outcome::Displaced(_) | Outcome::RetrySame | Outcome::Stopping | Outcome::Gone => Verdict::Neutral,
    }
}
