//! Follows the decisions of another engine, so that this one can take over at any moment.
//!
//! Guarantee: an engine that follows and hears the same events knows of every server what the deciding one knows: where
//! it is, how often it was tried, since when it is stopped. The next [`Engine::poll`] goes on with what is left, by the deadline both
//! had. What no engine would have decided is refused and changes nothing: a server started twice or never seen, one
//! more stopped than `max_concurrency`, one more moved from a node that a rebalance leaves its share, a target outside of the view or without the server's module, an end while something is under way.

use crate::engine::server::{Fate, Stage};
use crate::engine::{Engine, Phase};
use crate::event::{Action, EngineError};
use crate::ids::ServerId;
use crate::reason::Reason;
use crate::report::Ended;
use crate::shared::Shared;
use crate::time::Micros;

impl Engine {
    /// Takes in an action of an engine that was made with the same configuration, servers and view. Returns the action as it is
    /// to be carried out: an attempt may not take longer than this engine would give it.
    ///
    /// # Errors
    /// [`EngineError::Unexpected`] for what does not fit, [`EngineError::Finished`] after the end. Nothing is changed.
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

    /// Whether a server's next attempt may start: the server exists, waits for one, and the limit of stopped servers
    /// allows it.
    fn may_start(&self, id: ServerId) -> bool {
        let room = self.stopped_servers() < self.config.max_concurrency as usize;
        let waits = match self.active.get(&id).map(|server| &server.stage) {
            Some(Stage::Displaced { .. }) => true,
            Some(Stage::Untouched { .. }) => room,
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
        let reason = match self.phase {
            Phase::Settling(ended) => ended.reason(),
            _ if now > self.last_start(shared) => Reason::Deadline,
            _ if self.breaker.is_open() => Reason::Failures,
            _ if server.charged > 0 => Reason::AttemptsExhausted,
            _ => self.placement.reason(self.classes[id.index()] as usize, &self.config),
        };
        self.give_up(id, reason, &mut shared.ledger).ok_or(EngineError::Unexpected { id })
    }

    fn follow_finish(&mut self, now: Micros, shared: &mut Shared) -> Result<Action, EngineError> {
        let under_way = self.active.iter().find(|(_, server)| !matches!(server.stage, Stage::Untouched { .. }));
        if let Some((id, _)) = under_way {
            return Err(EngineError::Unexpected { id: *id });
        }
        let ended = match self.phase {
            Phase::Settling(ended) => ended,
            _ if self.breaker.is_open() => Ended::Failures,
            _ if now > self.last_start(shared) && !self.pending.is_empty() => Ended::Deadline,
            _ => self.done(),
        };
        self.finish(ended, now, shared);
        Ok(Action::Finish)
    }
}
