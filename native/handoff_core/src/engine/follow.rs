//! Follows the decisions of another engine, so that this engine can take over at any moment.
//!
//! Guarantee: an engine that follows and receives the same events has the same state of every server as the
//! deciding engine: where the server is, how often it was tried, and since when it is stopped. The next
//! [`Engine::poll`] continues with the remaining servers and the same deadline. Invalid orders are refused
//! and change nothing: a start of an unknown server or of one in an attempt, more servers stopped than
//! `max_concurrency`, more servers moved than a rebalance allows, a target that is not in the view or lacks
//! the server's module, an end while attempts are in flight. Only in the part of the drain that is reserved for
//! clearing reservations may a drain end with attempts in flight, as it does at its deadline.
//!
//! Orders and events cross on their way, so the two engines handle them in different sequences. Therefore an
//! event decides a server here only by what its own attempt says. Whatever else ends a server that still runs,
//! such as the attempts charged to it, is decided in a poll. No order says so: here the server stays open
//! until the end, and may start again.

use crate::engine::server::{Fate, Server, Stage};
use crate::engine::{Engine, Phase};
use crate::event::{Action, EngineError};
use crate::ids::ServerId;
use crate::reason::Reason;
use crate::report::Ended;
use crate::shared::Shared;
use crate::time::Micros;

impl Engine {
    /// Handles an action of an engine with the same configuration, servers and view. Returns the action to
    /// execute: the time limit of an attempt is at most the one that this engine would give.
    ///
    /// # Errors
    /// [`EngineError::Unexpected`] for an invalid action, [`EngineError::Finished`] after the end. Nothing is
    /// changed then.
    pub fn follow(&mut self, now: Micros, action: &Action, shared: &mut Shared) -> Result<Action, EngineError> {
        let taken = self.follow_action(now, action, shared);
        self.tell_others(false, shared);
        taken
    }

    fn follow_action(&mut self, now: Micros, action: &Action, shared: &mut Shared) -> Result<Action, EngineError> {
        if self.is_over() {
            return Err(EngineError::Finished);
        }
        match action {
            Action::Start { id, target, attempt, timeout } => {
                self.follow_start(now, *id, target, *attempt, *timeout, shared)
            }
            Action::Release { id } => self.follow_release(now, *id, shared),
            Action::Finish => self.follow_finish(now, shared),
        }
    }

    fn follow_start(
        &mut self,
        now: Micros,
        id: ServerId,
        target: &str,
        attempt: u32,
        limit: Micros,
        shared: &mut Shared,
    ) -> Result<Action, EngineError> {
        let unexpected = Err(EngineError::Unexpected { id });
        let Some(node) = shared.names.get(target).filter(|_| self.may_start(id)) else {
            return unexpected;
        };
        let starts = self.active.get(&id).map_or(0, |server| server.starts);
        if attempt != starts + 1 || self.placement.lacks_module(self.classes[id.index()] as usize, node) {
            return unexpected;
        }
        if !self.active.contains_key(&id) {
            self.pending.remove(self.classes[id.index()] as usize, id);
            self.pace.start(now);
            self.begin(id, now);
        }
        self.phase = Phase::Running;
        Ok(match self.start(id, node, now, shared) {
            Action::Start { id, target, attempt, timeout } => {
                Action::Start { id, target, attempt, timeout: timeout.min(limit) }
            }
            other => other,
        })
    }

    /// Whether a server's next attempt may start: the server exists, waits for an attempt, and the limit of
    /// stopped servers allows it.
    fn may_start(&self, id: ServerId) -> bool {
        let room = self.stopped_servers() < self.config.max_concurrency as usize;
        let waits = match self.active.get(&id).map(|server| &server.stage) {
            Some(Stage::Displaced { .. }) => true,
            Some(Stage::Untouched { .. }) => room && self.spares_another(),
            Some(_) => false,
            None => {
                room && self.spares_another() && self.fates.get(id.index()).is_some_and(|fate| *fate == Fate::Undecided)
            }
        };
        waits && !matches!(self.phase, Phase::Settling(_))
    }

    fn follow_release(&mut self, now: Micros, id: ServerId, shared: &mut Shared) -> Result<Action, EngineError> {
        let displaced = self.active.get(&id).filter(|server| matches!(server.stage, Stage::Displaced { .. }));
        let Some(server) = displaced else {
            return Err(EngineError::Unexpected { id });
        };
        let reason = self.likely_reason(id, server, now, shared);
        self.give_up(id, reason, &mut shared.ledger).ok_or(EngineError::Unexpected { id })
    }

    /// Why the deciding engine gave that server up, as far as this engine can tell.
    fn likely_reason(&self, id: ServerId, server: &Server, now: Micros, shared: &Shared) -> Reason {
        match self.phase {
            Phase::Settling(ended) => ended.reason(),
            _ if now > self.last_start(shared) => Reason::Deadline,
            _ if self.breaker.is_open() => Reason::Failures,
            _ if server.charged > 0 => Reason::AttemptsExhausted,
            _ => self.placement.reason(self.classes[id.index()] as usize, &self.config),
        }
    }

    fn follow_finish(&mut self, now: Micros, shared: &mut Shared) -> Result<Action, EngineError> {
        let under_way = self.active.iter().find(|(_, server)| !matches!(server.stage, Stage::Untouched { .. }));
        let late = now >= self.deadline - self.reserve() && self.displaced.is_empty();
        if let Some((id, _)) = under_way.filter(|_| !late) {
            return Err(EngineError::Unexpected { id: *id });
        }
        let cut = under_way.is_some();
        self.leave_exhausted();
        let untouched = self.active.iter().filter(|(_, server)| matches!(server.stage, Stage::Untouched { .. }));
        let left: Vec<(ServerId, Reason)> =
            untouched.map(|(id, server)| (*id, self.likely_reason(*id, server, now, shared))).collect();
        for (id, reason) in left {
            self.decide(id, Fate::Left(reason));
        }
        let ended = match self.phase {
            Phase::Settling(ended) => ended,
            _ if cut => Ended::Deadline,
            _ if self.breaker.is_open() => Ended::Failures,
            _ if now > self.last_start(shared) && !self.pending.is_empty() => Ended::Deadline,
            _ => self.done(),
        };
        self.finish(ended, now, shared);
        Ok(Action::Finish)
    }
}
