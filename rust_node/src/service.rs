//! The drain service: makes the decisions of all draining nodes.
//!
//! Guarantees
//! - The service has no socket and no clock: messages and times go in, messages come out
//!   ([`Service::take_outputs`]). The same calls give the same results.
//! - Each drain has an engine of its own. All drains on one storage share a ledger and a limiter, and are
//!   polled in turn. So two nodes that drain at once do not overload one target or the store.
//! - When a drain ends in any way, its entries in ledger and limiter are removed.
//! - An invalid message changes nothing or ends its own drain. It never affects another drain.
//!
//! ```text
//!             drain_open           servers, view          drain_start
//!   (unknown) ──────────▶ loading ───────────────▶ loading ──────────▶ running ──finish──▶ over
//!                            │                                            │                  │
//!                            └── close, drainer or connection gone, silent, refused, stopping┴──▶
//! (forgotten)
//! ```

mod admission;
mod attempts;
mod drain;
mod history;
mod info;
mod limits;
pub mod overview;
mod pace;
pub mod presence;
mod storage;

use std::collections::BTreeMap;
use std::sync::Arc;

use etf::Pid;
use handoff_core::time::Micros;
use handoff_core::{Ended, Goal, Reason};
use handoff_wire::{
    DrainId, KEEPALIVE_MS, Message, ProgressUpdate, RebalanceOpen, Refuse, RefuseReason, ReportMessage, SILENCE_MS,
    Started,
};
use tracing::{info, warn};

use crate::metrics::{Kind, Metrics};
use drain::{Drain, Taken};
use history::History;
pub use history::{EndedDrain, Refusal};
pub use info::{DrainInfo, Gaps};
pub use limits::ServiceLimits;
use storage::Storage;

/// How drains end here without a report.
const FORGOTTEN: [&str; 7] = ["closed", "refused", "drainer_down", "peer_down", "stopping", "silent", "overdue"];

/// The key of a drain: its node, and the node's number for the drain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub peer: Arc<str>,
    /// The number that the node gave the drain.
    pub id: DrainId,
}

/// A side effect that the caller must execute.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Send {
        peer: Arc<str>,
        to: Pid,
        message: Box<Message>,
    },
    /// Monitor the drain's process. Report its end to [`Service::drainer_down`].
    Monitor {
        key: Key,
        drainer: Pid,
    },
    Demonitor {
        key: Key,
    },
}

#[derive(Debug)]
pub struct Service {
    limits: ServiceLimits,
    metrics: Metrics,
    drains: BTreeMap<Key, Drain>,
    storages: BTreeMap<String, Storage>,
    outputs: Vec<Output>,
    history: History,
    stopping: bool,
    /// Incremented every round, so that a different drain is polled first each time.
    turn: usize,
}

impl Service {
    pub fn new(limits: ServiceLimits, metrics: Metrics) -> Self {
        Metrics::create(&metrics.drains_ended, Ended::ALL.map(Ended::name).into_iter().chain(FORGOTTEN));
        Metrics::create(&metrics.left, Reason::ALL.map(Reason::name));
        Metrics::create(&metrics.attempts, drain::OUTCOMES);
        Service {
            limits,
            metrics,
            drains: BTreeMap::new(),
            storages: BTreeMap::new(),
            outputs: Vec::new(),
            history: History::default(),
            stopping: false,
            turn: 0,
        }
    }

    /// Returns the side effects since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Handles a message of a drain. `from` is the sender, where it is known. Call [`Service::advance`] after
    /// one or several calls.
    pub fn receive(&mut self, now: Micros, peer: &Arc<str>, from: Option<&Pid>, message: Message) {
        Metrics::count(&self.metrics.messages, message.kind());
        let id = match &message {
            Message::DrainOpen(open) | Message::RebalanceOpen(RebalanceOpen(open)) => open.id,
            Message::Servers(servers) => servers.id,
            Message::View(view) => view.id,
            Message::DrainStart(start) => start.id,
            Message::Events(events) => events.id,
            Message::Keepalive(keepalive) => keepalive.id,
            Message::DrainClose(close) => close.id,
            // Our refusal crossed this message, or the message is not for this side.
            _ => return Metrics::count(&self.metrics.refused, "unexpected_kind"),
        };
        let key = Key { peer: Arc::clone(peer), id };
        if let Message::DrainOpen(open) | Message::RebalanceOpen(RebalanceOpen(open)) = message {
            return self.open(now, key, open);
        }
        let Some(drain) = self.drains.get_mut(&key) else {
            Metrics::count(&self.metrics.refused, "unknown_drain");
            if let (Some(from), false) = (from, matches!(message, Message::DrainClose(_))) {
                self.refuse(Arc::clone(peer), from.clone(), id, RefuseReason::UnknownDrain);
            }
            return;
        };
        drain.received_at = now;
        let Some(storage) = self.storages.get_mut(&drain.storage) else {
            return;
        };
        let names_before = storage.names();
        match drain.take(now, message, storage, &self.metrics) {
            Taken::Fine => {}
            Taken::Started => {
                drain.span.in_scope(|| info!("drain started"));
                let (to, message) = (drain.drainer.clone(), Started { id }.into());
                self.outputs.push(Output::Send { peer: Arc::clone(peer), to, message: Box::new(message) });
            }
            Taken::Closed => self.forget(now, &key, None, "closed"),
            Taken::Refused(reason) => self.forget(now, &key, Some(reason), "refused"),
        }
        // Names that other drains have brought do not end this one.
        let most = names_before.max(self.limits.names);
        let storage = self.drains.get(&key).and_then(|drain| self.storages.get(&drain.storage));
        if storage.is_some_and(|storage| storage.names() > most) {
            let reason = RefuseReason::Full { what: "node names".to_owned(), limit: self.limits.names as u64 };
            self.forget(now, &key, Some(reason), "refused");
        }
    }

    /// Ends a drain whose process has ended.
    pub fn drainer_down(&mut self, now: Micros, key: &Key) {
        self.forget(now, key, None, "drainer_down");
    }

    /// Ends all drains of a node whose connection has ended.
    pub fn peer_down(&mut self, now: Micros, peer: &str) {
        let keys: Vec<Key> = self.drains.keys().filter(|key| *key.peer == *peer).cloned().collect();
        for key in keys {
            self.forget(now, &key, None, "peer_down");
        }
    }

    /// Accepts no further drains and hands the running ones back to their nodes.
    pub fn stop(&mut self, now: Micros) {
        self.stopping = true;
        for key in self.drains.keys().cloned().collect::<Vec<_>>() {
            self.forget(now, &key, Some(RefuseReason::Stopping), "stopping");
        }
    }

    /// Polls every engine that may have a decision to make, and ends drains that are overdue.
    pub fn advance(&mut self, now: Micros) {
        self.drop_silent(now);
        self.turn = self.turn.wrapping_add(1);
        let mut keys: Vec<Key> = self.drains.keys().cloned().collect();
        let turn = self.turn % keys.len().max(1);
        keys.rotate_left(turn);
        for key in keys {
            let Some(drain) = self.drains.get_mut(&key) else {
                continue;
            };
            let Some(storage) = self.storages.get_mut(&drain.storage) else {
                continue;
            };
            let mut messages: Vec<Message> = Vec::new();
            // A permit that one drain returned may go to another drain.
            if storage.changed || drain.is_due(now) {
                let (orders, report) = drain.poll(now, key.id, storage);
                messages.extend(orders.into_iter().map(Message::from));
                if let Some(report) = report {
                    let ended = report.ended.map_or("unknown", Ended::name);
                    Metrics::count(&self.metrics.drains_ended, ended);
                    for (reason, count) in &report.left {
                        self.metrics.left.get_or_create(&Kind(reason.name())).inc_by(*count);
                    }
                    self.history.add_ended(now, drain.ended(&key.peer, EndedDrain::of(&report)));
                    messages.push(ReportMessage { id: key.id, report }.into());
                }
            }
            if now.since(drain.progress_sent_at) >= Micros::from_millis(KEEPALIVE_MS) {
                drain.progress_sent_at = now;
                let progress = drain.progress(storage);
                drain.note(now, &progress);
                messages.push(ProgressUpdate { id: key.id, progress }.into());
            }
            let to = |message| Output::Send {
                peer: Arc::clone(&key.peer),
                to: drain.drainer.clone(),
                message: Box::new(message),
            };
            self.outputs.extend(messages.into_iter().map(to));
        }
        for storage in self.storages.values_mut() {
            storage.changed = false;
        }
        let remember = self.limits.remember;
        self.storages.retain(|_, storage| storage.forgotten_at(remember).is_none_or(|at| now < at));
        self.observe();
    }

    /// The latest time of the next [`Service::advance`].
    pub fn wake(&self) -> Option<Micros> {
        let of_drains = self.drains.values().flat_map(|drain| {
            let silent = drain.received_at + Micros::from_millis(SILENCE_MS);
            let tell = drain.progress_sent_at + Micros::from_millis(KEEPALIVE_MS);
            [Some(silent), Some(tell), drain.wake]
        });
        let of_storages = self.storages.values().map(|storage| storage.forgotten_at(self.limits.remember));
        of_drains.chain(of_storages).flatten().min()
    }

    pub fn drains(&self, now: Micros) -> Vec<DrainInfo> {
        let info = |(key, drain): (&Key, &Drain)| {
            let progress = self.storages.get(&drain.storage).map(|storage| drain.progress(storage)).unwrap_or_default();
            let total = if drain.goal == Goal::Rebalance { progress.excess } else { progress.total };
            DrainInfo {
                node: key.peer.to_string(),
                id: key.id.0,
                supervisor: drain.supervisor.clone(),
                goal: drain.goal.name().to_owned(),
                stage: drain.stage_name().to_owned(),
                age_ms: now.since(drain.opened).as_millis(),
                total,
                moved: progress.moved,
                // At the end of a rebalance this includes the servers that the node keeps as its share.
                left: progress.left.min(total.saturating_sub(progress.moved)),
                in_flight: progress.in_flight,
                displaced: progress.displaced,
                failures: progress.failures,
                limit: progress.limit,
                waits_for: progress.waits_for.map(|waits_for| waits_for.name().to_owned()),
                moved_per_s: drain.pace.per_second(),
                gaps: drain.gaps(),
            }
        };
        self.drains.iter().map(info).collect()
    }

    /// The latest drains that have ended, newest first.
    pub fn ended(&self, now: Micros) -> Vec<EndedDrain> {
        self.history.ended(now)
    }

    /// The latest refusals, newest first.
    pub fn refused(&self, now: Micros) -> Vec<Refusal> {
        self.history.refused(now)
    }

    pub fn note_refusal(&mut self, now: Micros, peer: &str, supervisor: Option<&str>, why: String) {
        self.history.add_refused(now, peer, supervisor, why);
    }

    fn drop_silent(&mut self, now: Micros) {
        let silence = Micros::from_millis(SILENCE_MS);
        let mut gone = Vec::new();
        for (key, drain) in &self.drains {
            if now.since(drain.received_at) >= silence {
                gone.push((key.clone(), RefuseReason::Silent, "silent"));
            } else if drain.is_overdue(now, self.limits.linger) {
                gone.push((key.clone(), RefuseReason::UnknownDrain, "overdue"));
            }
        }
        for (key, reason, kind) in gone {
            self.forget(now, &key, Some(reason), kind);
        }
    }

    /// Forgets a drain. Its process is told the reason, unless the process asked for the end or is gone.
    fn forget(&mut self, now: Micros, key: &Key, reason: Option<RefuseReason>, kind: &'static str) {
        let Some(mut drain) = self.drains.remove(key) else {
            return;
        };
        let over = drain.stage_name() == "over";
        if !over {
            debug_assert!(FORGOTTEN.contains(&kind), "{kind}");
            Metrics::count(&self.metrics.drains_ended, kind);
            let reason = reason.as_ref().map(tracing::field::display);
            drain.span.in_scope(|| match kind {
                "closed" => info!("drain closed by its node"),
                _ => warn!(kind, reason, "drain forgotten before its end"),
            });
        }
        if let (Some(reason), "refused") = (&reason, kind) {
            self.history.add_refused(now, &key.peer, Some(&drain.supervisor), reason.to_string());
        }
        if let Some(storage) = self.storages.get_mut(&drain.storage) {
            // A drain that ends because this node stops needs no history entry.
            if !over
                && !self.stopping
                && let Some(report) = drain.report(now, storage)
            {
                let ended = drain.ended(&key.peer, EndedDrain::of(&report));
                self.history.add_ended(now, EndedDrain { ended: kind.to_owned(), ..ended });
            }
            drain.give_back(now, storage);
            storage.left(drain.ceiling, now);
        }
        if let Some(reason) = reason {
            self.refuse(Arc::clone(&key.peer), drain.drainer.clone(), key.id, reason);
        }
        self.outputs.push(Output::Demonitor { key: key.clone() });
        self.observe();
    }

    fn refuse(&mut self, peer: Arc<str>, to: Pid, id: DrainId, reason: RefuseReason) {
        self.outputs.push(Output::Send { peer, to, message: Box::new(Refuse { id: Some(id), reason }.into()) });
    }

    fn observe(&self) {
        let sum = |of: fn(&Storage) -> u32| self.storages.values().map(|storage| i64::from(of(storage))).sum();
        self.metrics.limit.set(sum(|storage| storage.shared.limiter.limit()));
        self.metrics.in_flight.set(sum(|storage| storage.shared.limiter.in_flight()));
        // The gauge is set last, so that a reader that sees no drain sees the final counters.
        self.metrics.drains.set(i64::try_from(self.drains.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
