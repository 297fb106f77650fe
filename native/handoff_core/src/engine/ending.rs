//! Gives servers up, and ends the drain.
//!
//! Guarantee: a server that was stopped is released before it counts as left. At the end every server has a
//! fate.

use crate::engine::server::{Fate, Server, Stage};
use crate::engine::{Engine, Phase};
use crate::event::Action;
use crate::ids::ServerId;
use crate::ledger::Ledger;
use crate::placement::{Access, Choice};
use crate::reason::Reason;
use crate::report::Ended;
use crate::shared::Shared;
use crate::time::Micros;

impl Engine {
    /// Gives a server up. If the server was stopped, its reservation is cleared.
    pub(super) fn give_up(&mut self, id: ServerId, reason: Reason, ledger: &mut Ledger) -> Option<Action> {
        self.unpin(id, ledger);
        let server = self.active.get_mut(&id)?;
        if server.stopped_at.is_none() {
            self.decide(id, Fate::Left(reason));
            return None;
        }
        self.displaced.remove(&(server.displaced_at, id));
        server.stage = Stage::Releasing { reason };
        self.tally.releasing += 1;
        Some(Action::Release { id })
    }

    pub(super) fn give_up_displaced(&mut self, reason: Reason, ledger: &mut Ledger, actions: &mut Vec<Action>) {
        let queue: Vec<ServerId> = self.displaced.iter().map(|(_, id)| *id).collect();
        for id in queue {
            actions.extend(self.give_up(id, reason, ledger));
        }
    }

    /// Leaves running servers that have used up their attempts. Only a poll does so: an engine that follows
    /// receives orders and events in another sequence than the deciding engine, so it may charge a server for
    /// an attempt that the other one does not charge.
    pub(super) fn leave_exhausted(&mut self) {
        let max_attempts = self.config.max_attempts;
        if !self.is_over() {
            self.leave_untouched(Reason::AttemptsExhausted, |server| server.charged >= max_attempts);
        }
    }

    /// Leaves those running servers whose last attempt changed nothing and for which `leaves` is true.
    pub(super) fn leave_untouched(&mut self, reason: Reason, leaves: impl Fn(&Server) -> bool) {
        let untouched: Vec<ServerId> = self
            .active
            .iter()
            .filter(|(_, server)| matches!(server.stage, Stage::Untouched { .. }) && leaves(server))
            .map(|(id, _)| *id)
            .collect();
        for id in untouched {
            self.decide(id, Fate::Left(reason));
        }
    }

    /// Releases the reserved slots of waiting servers, because another engine continues this drain and other
    /// drains share the slots. Attempts in flight release theirs when they end.
    pub fn give_up_places(&mut self, shared: &mut Shared) {
        for id in self.active.keys().copied().collect::<Vec<_>>() {
            self.unpin(id, &mut shared.ledger);
        }
        self.tell_others(true, shared);
    }

    /// Whether the drain ends now, and why. `waits` says that some server can be started later.
    pub(super) fn over(&self, now: Micros, waits: bool) -> Option<Ended> {
        let idle = self.active.is_empty();
        match self.phase {
            Phase::Over(_) => None,
            Phase::Settling(ended) if idle || now >= self.deadline => Some(ended),
            Phase::Running if idle && !waits => Some(self.done()),
            _ if now >= self.deadline => Some(Ended::Deadline),
            _ => None,
        }
    }

    /// The end of a drain in which nothing more can start.
    pub(super) fn done(&self) -> Ended {
        let given_up =
            self.moves_left() > 0 && self.pending.waiting().any(|(class, ids)| !ids.is_empty() && self.given_up(class));
        if given_up { Ended::Failures } else { Ended::Done }
    }

    /// Decides every server that is still undecided.
    pub(super) fn finish(&mut self, ended: Ended, now: Micros, shared: &mut Shared) {
        self.give_up_places(shared);
        for id in self.active.keys().copied().collect::<Vec<_>>() {
            let reason = match self.active[&id].stage {
                Stage::Releasing { reason } => reason,
                _ => ended.reason(),
            };
            let reason = if self.active[&id].not_stored { Reason::StateNotStored } else { reason };
            self.fates[id.index()] = Fate::Left(reason);
            *self.tally.left.entry(reason).or_insert(0) += 1;
        }
        self.displaced.clear();
        let mut due = self.moves_left();
        for (class, ids) in self.pending.waiting() {
            if ids.is_empty() {
                continue;
            }
            let choice = self.placement.choose(class, &self.config, &shared.ledger, |_| Access::Open);
            let reason = match choice {
                _ if ended == Ended::Done && self.rebalance.is_some() => {
                    self.placement.reason_below_share(class, &self.config, &shared.ledger)
                }
                Choice::Node(_) => ended.reason(),
                Choice::Wait | Choice::Nowhere => self.placement.reason(class, &self.config),
            };
            for id in ids {
                let reason = if due > 0 { reason } else { Reason::Kept };
                due = due.saturating_sub(1);
                *self.tally.left.entry(reason).or_insert(0) += 1;
                self.fates[id as usize] = Fate::Left(reason);
            }
        }
        self.phase = Phase::Over(ended);
        self.ended = Some(now);
    }

    pub(super) fn next_wake(&self, now: Micros, shared: &Shared) -> Micros {
        let mut wake = self.deadline;
        let mut consider = |at: Micros| {
            if at > now {
                wake = wake.min(at);
            }
        };
        if let Phase::Waiting(until) = self.phase {
            consider(until);
        }
        match self.phase {
            Phase::Waiting(_) | Phase::Running => {
                consider(self.last_start(shared) + Micros(1));
                let rests = [self.cooldowns.next_end(now), self.store.next_change(now), shared.limiter.next_tick()];
                rests.into_iter().flatten().for_each(&mut consider);
                Some(self.pace.next()).filter(|_| !self.pending.is_empty()).into_iter().for_each(&mut consider);
                self.held_until().filter(|_| !self.displaced.is_empty()).into_iter().for_each(&mut consider);
                self.active.values().filter_map(Server::ready).for_each(&mut consider);
            }
            Phase::Settling(_) | Phase::Over(_) => {}
        }
        wake
    }
}
