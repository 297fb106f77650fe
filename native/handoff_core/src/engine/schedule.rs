//! Which servers start now: displaced ones first, then pending ones in order.
//!
//! Guarantee: nothing starts beyond the limiter's limit, a target's cap or a rest, nor while `max_concurrency` servers are
//! in flight, stopping, displaced or being released.

use crate::config::Config;
use crate::cooldown::Cooldowns;
use crate::engine::server::{Server, Stage};
use crate::engine::{Engine, Phase};
use crate::event::Action;
use crate::ids::{NodeId, ServerId};
use crate::ledger::Ledger;
use crate::placement::{Access, Choice};
use crate::reason::Reason;
use crate::report::WaitsFor;
use crate::shared::Shared;
use crate::store_health::Gate;
use crate::time::Micros;

impl Engine {
    /// Until when displaced servers are held for targets whose connection was lost: as long as running servers
    /// wait for such nodes. After that they are released, so that other nodes can start them.
    pub(super) fn held_until(&self) -> Option<Micros> {
        let lost = self.lost.values().max().filter(|_| self.placement.any_out_of_reach(&self.config));
        lost.map(|&at| at + Micros::from_millis(self.config.wait_for_lost_ms))
    }

    /// Starts displaced servers, the longest displaced first. Returns what one of them waits for. `others`: running
    /// servers can probe the store.
    pub(super) fn start_displaced(
        &mut self,
        now: Micros,
        others: bool,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) -> Option<WaitsFor> {
        let mut waits = None;
        let queue: Vec<ServerId> = self.displaced.iter().map(|(_, id)| *id).collect();
        for id in queue {
            let Some(server) = self.active.get(&id) else { continue };
            let Stage::Displaced { ready, pinned } = server.stage else {
                continue;
            };
            if server.stopped_at.is_none() && self.is_halted() {
                actions.extend(self.give_up(id, Reason::Kept, &mut shared.ledger));
                continue;
            }
            if server.charged >= self.config.max_attempts {
                actions.extend(self.give_up(id, Reason::AttemptsExhausted, &mut shared.ledger));
                continue;
            }
            let runs = server.stopped_at.is_none();
            let gate = if runs { self.store.running(now) } else { self.store.displaced(id, now, others) };
            let refused = !server.excluded.is_empty();
            let permits = shared.limiter.available() > 0;
            // One that was refused may have no place left, and releasing it needs no permit.
            let decidable = permits || (refused && pinned.is_none());
            if ready > now || gate == Gate::Closed || !decidable {
                waits = Some(match gate {
                    Gate::Closed => WaitsFor::Store,
                    _ if ready > now => WaitsFor::Target,
                    _ => WaitsFor::Limit,
                });
                continue;
            }
            let class = self.classes[id.index()] as usize;
            // The server's reserved slot may be the last one at that node, so it is freed for the server's
            // own attempt.
            self.unpin(id, &mut shared.ledger);
            let pinned = pinned.filter(|node| self.placement.accepts(class, *node, &self.config, &shared.ledger));
            let choice = self.target_of_displaced(id, pinned, gate, now, &shared.ledger);
            match choice {
                Choice::Node(node) if permits => actions.push(self.start(id, node, now, shared)),
                Choice::Node(_) => waits = Some(WaitsFor::Limit),
                Choice::Wait => {
                    waits = Some(WaitsFor::Target);
                    if let Some(node) = pinned {
                        self.pin(id, node, &mut shared.ledger);
                    }
                }
                // The server runs, and the drain waits for a target.
                Choice::Nowhere if runs && matches!(self.phase, Phase::Waiting(_)) => waits = Some(WaitsFor::Target),
                // No node has refused the server, and a target may be connected again soon.
                Choice::Nowhere if !refused && self.held_until().is_some_and(|until| now < until) => {
                    waits = Some(WaitsFor::Target);
                }
                Choice::Nowhere => {
                    let reason =
                        if refused { Reason::AttemptsExhausted } else { self.placement.reason(class, &self.config) };
                    actions.extend(self.give_up(id, reason, &mut shared.ledger));
                }
            }
        }
        waits
    }

    /// Where a displaced server goes. `pinned` is the node that has a place for it.
    fn target_of_displaced(
        &mut self,
        id: ServerId,
        pinned: Option<NodeId>,
        gate: Gate,
        now: Micros,
        ledger: &Ledger,
    ) -> Choice {
        let Some(server) = self.active.get(&id) else { return Choice::Wait };
        let class = self.classes[id.index()] as usize;
        let (config, cooldowns) = (&self.config, &self.cooldowns);
        let access = |node| access(node, config, cooldowns, ledger, now);
        let below_share = |node| match &self.rebalance {
            Some(rebalance) if rebalance.access(node, ledger) == Access::Shut => Access::Shut,
            _ => access(node),
        };
        match pinned.map(|node| (node, access(node))) {
            Some((node, Access::Open)) => return Choice::Node(node),
            Some((_, Access::Soon)) => return Choice::Wait,
            Some((_, Access::Shut)) | None => {}
        }
        let excluded = server.excluded.as_slice();
        let mut choose = |excluded: &[NodeId], access: &dyn Fn(NodeId) -> Access| {
            self.placement.choose_displaced(class, config, ledger, excluded, access)
        };
        // A probe of the store prefers a target at which the store did not fail.
        let mut choice = Choice::Wait;
        if gate == Gate::Probe {
            choice = choose(&self.unserved.and(excluded), &below_share);
        }
        if !matches!(choice, Choice::Node(_)) {
            choice = choose(excluded, &below_share);
        }
        // The server is down, so a node that already has its share is accepted.
        if !matches!(choice, Choice::Node(_)) && server.stopped_at.is_some() && self.rebalance.is_some() {
            choice = choose(excluded, &access);
        }
        choice
    }

    /// Starts pending servers in order while there is room. Returns what some of the others wait for.
    pub(super) fn start_pending(
        &mut self,
        now: Micros,
        shared: &mut Shared,
        actions: &mut Vec<Action>,
    ) -> Option<WaitsFor> {
        let mut waits = None;
        while let Some(class) = self.pending.next_class() {
            if self.store.running(now) == Gate::Closed {
                return Some(WaitsFor::Store);
            }
            if self.given_up(class) {
                self.pending.skip();
                continue;
            }
            if self.moves_left() == 0 {
                return waits;
            }
            if shared.limiter.available() == 0 || self.stopped_servers() >= self.config.max_concurrency as usize {
                return Some(WaitsFor::Limit);
            }
            let (config, cooldowns, ledger) = (&self.config, &self.cooldowns, &shared.ledger);
            let choice = self.placement.choose(class, config, ledger, |node| match &self.rebalance {
                Some(rebalance) if rebalance.access(node, ledger) == Access::Shut => Access::Shut,
                _ => access(node, config, cooldowns, ledger, now),
            });
            match choice {
                Choice::Node(_) if !self.pace.is_open(now) => return Some(WaitsFor::Pace),
                Choice::Node(node) => {
                    let Some(id) = self.pending.take() else { break };
                    self.pace.start(now);
                    self.begin(id, now);
                    actions.push(self.start(id, node, now, shared));
                }
                Choice::Wait => {
                    waits = Some(WaitsFor::Target);
                    self.pending.skip();
                }
                Choice::Nowhere => self.pending.skip(),
            }
        }
        waits
    }

    /// Servers that are or may be unavailable: in flight, stopping, displaced or being released.
    pub(super) fn stopped_servers(&self) -> usize {
        let tally = &self.tally;
        let told_to_stop = usize::try_from(tally.in_flight + tally.stopping + tally.releasing).unwrap_or(usize::MAX);
        told_to_stop.saturating_add(self.displaced.len())
    }

    /// Servers whose last attempt did nothing come before pending servers, as far as more servers may be
    /// unavailable.
    pub(super) fn retry_untouched(&mut self, now: Micros) {
        let ready: Vec<ServerId> = self
            .active
            .iter()
            .filter(|(_, server)| matches!(server.stage, Stage::Untouched { ready } if ready <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            if self.store.running(now) == Gate::Closed || self.stopped_servers() >= self.config.max_concurrency as usize
            {
                break;
            }
            self.displace(id, now, now);
        }
    }

    /// What running servers wait for whose last attempt changed nothing, if there are any.
    pub(super) fn retries_wait_for(&self, now: Micros) -> Option<WaitsFor> {
        let waits = self.active.values().any(|server| matches!(server.stage, Stage::Untouched { .. }));
        waits.then(|| if self.store.running(now) == Gate::Closed { WaitsFor::Store } else { WaitsFor::Target })
    }

    /// Reserves a slot for a displaced server at the node where it will be tried again.
    pub(super) fn pin(&mut self, id: ServerId, node: NodeId, ledger: &mut Ledger) {
        if let Some(Stage::Displaced { pinned, .. }) = self.active.get_mut(&id).map(|server| &mut server.stage) {
            *pinned = Some(node);
            ledger.reserve(node, self.module(id));
            self.rebalance_sends(node);
        }
    }

    /// Releases the reserved slot of a server, if it has one.
    pub(super) fn unpin(&mut self, id: ServerId, ledger: &mut Ledger) {
        if let Some(Stage::Displaced { pinned, .. }) = self.active.get_mut(&id).map(|server| &mut server.stage)
            && let Some(node) = pinned.take()
        {
            ledger.release(node, self.module(id));
            self.rebalance_takes_back(node);
        }
    }

    /// Records that a server's first attempt is about to start.
    pub(super) fn begin(&mut self, id: ServerId, now: Micros) {
        self.active.insert(id, Server::new(now));
        self.rebalance_begins();
    }

    pub(super) fn start(&mut self, id: ServerId, node: NodeId, now: Micros, shared: &mut Shared) -> Action {
        self.unpin(id, &mut shared.ledger);
        self.rebalance_sends(node);
        shared.ledger.assign(node, self.module(id));
        let permit = shared.limiter.on_start(now);
        self.store.started(id, now);
        self.tally.in_flight += 1;
        self.tally.attempts += 1;
        self.tally.highest_in_flight =
            self.tally.highest_in_flight.max(u32::try_from(self.tally.in_flight).unwrap_or(u32::MAX));
        let timeout = Micros::from_millis(self.config.attempt_timeout_ms);
        let timeout = timeout.min(self.deadline.since(now) - self.reserve());
        let server = self.active.entry(id).or_insert_with(|| Server::new(now));
        self.displaced.remove(&(server.displaced_at, id));
        server.starts += 1;
        if server.starts == 2 {
            self.tally.retried += 1;
        }
        server.stage = Stage::InFlight { target: node, started: now, permit };
        Action::Start { id, target: shared.names.name(node).clone(), attempt: server.starts, timeout }
    }
}

/// Whether a node may take another attempt now: below its cap, and not resting.
fn access(node: NodeId, config: &Config, cooldowns: &Cooldowns, ledger: &Ledger, now: Micros) -> Access {
    match config.max_concurrency_per_target {
        Some(cap) if ledger.in_flight(node) >= cap => Access::Soon,
        _ => cooldowns.access(node, now),
    }
}
