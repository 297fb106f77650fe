//! A rebalance: the same engine, which moves only its node's excess, to nodes that lack servers.
//!
//! Guarantees
//! - Servers in flight or moved never exceed the excess at the start. A later view can only reduce that
//!   number.
//! - A running server moves only to a node below its share, within this source's part of what that node
//!   lacks. A stopped server goes to any node that can run it: running takes precedence over balance.
//! - When a node begins to drain, releases differ, or the Rust node that coordinates it is lost, nothing more starts.
//!
//! The shares of the start are kept. Later views count servers in the middle of moves, and their numbers have
//! different ages, so shares computed from them would fluctuate. The next rebalance takes later changes into
//! account.

use std::collections::BTreeMap;

use crate::balance::{self, Carrier, Idle, Moment, f64_of, whole};
use crate::config::Config;
use crate::engine::server::Stage;
use crate::engine::{Engine, Phase};
use crate::ids::{NodeId, NodeTable};
use crate::ledger::{Leaves, Ledger};
use crate::placement::{Access, Placement, carried};
use crate::report::{Balance, NodeShare};
use crate::shared::Shared;

/// A node that lacked servers at the start.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// How many more servers of this source may go to the node.
    quota: u64,
    /// The node's share.
    share: f64,
    /// When the ledger has sent this many servers to the node, for all sources, the node has its share.
    most_sent: u64,
    /// How many servers of the quota are recorded in the ledger.
    promised: u64,
    /// Whether the node lacked more than the tolerance at the start.
    light: bool,
    /// Whether the ledger says so to later rebalances.
    filled: bool,
}

/// The state of a rebalance.
#[derive(Debug)]
pub(crate) struct Rebalance {
    source: NodeId,
    /// Why nothing moves, or nothing more.
    idle: Option<Idle>,
    /// The excess at the start.
    excess: u64,
    /// How many servers may still begin to move.
    moves: u64,
    rooms: BTreeMap<NodeId, Room>,
    before: Vec<NodeShare>,
    /// The number of servers of the source at the start.
    own: f64,
    /// The share of the source. Servers above it are excess.
    share: f64,
    /// Servers that are in flight from the source or moved.
    begun: u64,
    /// The fewest servers that orders of another engine may leave at the source.
    least: f64,
}

impl Rebalance {
    /// Plans a rebalance from the current view.
    pub(crate) fn new(placement: &Placement, config: &Config, names: &mut NodeTable, ledger: &Ledger) -> Self {
        let source = names.intern(&config.source.name);
        let start = balance::carriers(placement, ledger, config, Moment::AtTheEnd);
        let own = start.iter().find(|carrier| carrier.id == source);
        let outdated = balance::is_outdated(placement, config).then_some(Idle::UnknownLoad);
        let obstacle = balance::obstacle(placement, config).or(outdated);
        let quota = obstacle.map_or_else(|| balance::quota(&start, source, config), Err);
        let (idle, moves, targets) = match quota {
            Ok(quota) => (None, quota.moves, quota.targets),
            Err(idle) => (Some(idle), 0, Vec::new()),
        };
        let rooms = targets.into_iter().map(|(target, quota)| {
            let comes = u64::from(ledger.sent(target.id)) + ledger.promised(target.id);
            let most_sent = comes + rounded_up(target.lack());
            let (share, light) = (target.servers + target.lack(), target.is_light(config.tolerance));
            (target.id, Room { quota, share, most_sent, promised: 0, light, filled: false })
        });
        let least = own.filter(|_| obstacle.is_none()).map_or(f64::INFINITY, |own| own.least(config.tolerance));
        let (own, share) = own.map_or((0.0, 0.0), |own| (own.servers, own.servers - own.excess()));
        let (rooms, before) = (rooms.collect(), shares(&start, names));
        Rebalance { source, idle, excess: moves, moves, rooms, before, own, share, begun: 0, least }
    }

    /// Stops all further moves.
    fn halt(&mut self, idle: Idle) {
        self.idle.get_or_insert(idle);
        self.moves = 0;
    }

    /// The excess at the start.
    pub(crate) fn excess(&self) -> u64 {
        self.excess
    }

    /// How many servers may still begin to move.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// Whether a running server may be sent to `node`.
    pub(crate) fn access(&self, node: NodeId, ledger: &Ledger) -> Access {
        let lacks = |room: &Room| room.quota > 0 && u64::from(ledger.sent(node)) < room.most_sent;
        if self.rooms.get(&node).is_some_and(lacks) { Access::Open } else { Access::Shut }
    }

    /// Counts a server that begins to move.
    pub(crate) fn begin(&mut self) {
        self.moves = self.moves.saturating_sub(1);
        self.begun += 1;
    }

    /// Takes back the count of a server that stays.
    fn undo(&mut self) {
        self.begun = self.begun.saturating_sub(1);
        self.moves += u64::from(self.idle.is_none());
    }

    /// Counts an attempt to a node.
    pub(crate) fn send(&mut self, node: NodeId) {
        if let Some(room) = self.rooms.get_mut(&node) {
            room.quota = room.quota.saturating_sub(1);
        }
    }

    /// Takes back the count of an attempt that failed.
    fn take_back(&mut self, node: NodeId) {
        if let Some(room) = self.rooms.get_mut(&node) {
            room.quota += 1;
        }
    }

    /// Applies a new view, which can only reduce what moves.
    fn refresh(&mut self, placement: &Placement, config: &Config, ledger: &Ledger) {
        if self.idle.is_some() {
            return;
        }
        if let Some(obstacle) = balance::obstacle(placement, config) {
            return self.halt(obstacle);
        }
        for (id, node) in placement.nodes() {
            if id == self.source {
                let own = self.left().min(node.server_count().unwrap_or(f64::INFINITY));
                self.moves = self.moves.min(rounded_up(own - self.share));
            } else if let (Some(room), Some(servers)) = (self.rooms.get_mut(&id), carried(id, node, ledger)) {
                room.quota = room.quota.min(rounded_up(room.share - servers));
            }
        }
    }

    /// The servers of the source that have not begun to move.
    fn left(&self) -> f64 {
        (self.own - f64_of(self.begun)).max(0.0)
    }

    /// Records in the ledger, for rebalances that begin later, how many servers this one leaves at its
    /// source, how many it will still send to each node, and which nodes were light. `settles`: no
    /// more begin to move. `ends`: the last attempt has ended, too.
    fn promise(&mut self, settles: bool, ends: bool, ledger: &mut Ledger) {
        let moves = if settles || ends { 0 } else { self.moves };
        let leaves = Leaves { now: self.left(), at_the_end: self.left() - f64_of(moves) };
        ledger.leave(self.source, Some(leaves).filter(|_| !ends && self.excess > 0));
        // The quotas may be more than the moves. Each node is told its part, and all parts are as many as the
        // moves.
        let quotas = self.rooms.values().map(|room| room.quota).sum::<u64>().max(1);
        let part = |quota: u64| u128::from(quota) * u128::from(moves.min(quotas)) / u128::from(quotas);
        let mut before = 0;
        for (node, room) in &mut self.rooms {
            let comes = u64::try_from(part(before + room.quota) - part(before)).unwrap_or(u64::MAX);
            before += room.quota;
            if comes != room.promised {
                ledger.promise(*node, room.promised, comes);
                room.promised = comes;
            }
            if room.filled != (room.light && !ends) {
                room.filled = !ends;
                ledger.fill(*node, room.filled);
            }
        }
    }

    /// The shares at the start and by the current data.
    pub(crate) fn report(&self, placement: &Placement, config: &Config, names: &NodeTable, ledger: &Ledger) -> Balance {
        let now = balance::carriers(placement, ledger, config, Moment::Now(self.left()));
        Balance { idle: self.idle, excess: self.excess, before: self.before.clone(), after: shares(&now, names) }
    }
}

fn shares(carriers: &[Carrier], names: &NodeTable) -> Vec<NodeShare> {
    let of = |carrier: &Carrier| NodeShare {
        name: names.name(carrier.id).clone(),
        servers: whole(carrier.servers),
        share: carrier.share,
    };
    carriers.iter().map(of).collect()
}

impl Engine {
    /// How many running servers may still begin to move.
    pub(super) fn moves_left(&self) -> u64 {
        self.rebalance.as_ref().map_or(u64::MAX, Rebalance::moves)
    }

    /// Whether no running server is moved any more.
    pub(super) fn is_halted(&self) -> bool {
        self.rebalance.as_ref().is_some_and(|rebalance| rebalance.idle.is_some())
    }

    /// Whether the source keeps enough servers when an order of another engine moves one more. Servers whose
    /// last attempt changed nothing still run here: the other engine may have left them.
    pub(super) fn spares_another(&self) -> bool {
        self.rebalance.as_ref().is_none_or(|rebalance| {
            let untouched = self.active.values().filter(|server| matches!(server.stage, Stage::Untouched { .. }));
            rebalance.left() + f64_of(untouched.count() as u64) - 1.0 >= rebalance.least
        })
    }

    pub(super) fn rebalance_begins(&mut self) {
        self.rebalance.iter_mut().for_each(|rebalance| rebalance.begin());
    }

    /// Records that a server that had begun to move stays at the source.
    pub(super) fn rebalance_keeps(&mut self) {
        self.rebalance.iter_mut().for_each(|rebalance| rebalance.undo());
    }

    pub(super) fn rebalance_sends(&mut self, node: NodeId) {
        self.rebalance.iter_mut().for_each(|rebalance| rebalance.send(node));
    }

    pub(super) fn rebalance_takes_back(&mut self, node: NodeId) {
        self.rebalance.iter_mut().for_each(|rebalance| rebalance.take_back(node));
    }

    pub(super) fn refresh_rebalance(&mut self, shared: &Shared) {
        if let Some(rebalance) = &mut self.rebalance {
            rebalance.refresh(&self.placement, &self.config, &shared.ledger);
        }
    }

    /// Stops the rebalance while a drain on the same ledger runs.
    pub(super) fn yield_to_drains(&mut self, shared: &Shared) {
        if let Some(rebalance) = self.rebalance.as_mut().filter(|_| shared.drains > 0) {
            rebalance.halt(Idle::NodeDraining);
        }
    }

    /// Stops the rebalance: the lost Rust node knew the other nodes' rebalances, which this engine does not.
    pub(super) fn coordinator_lost(&mut self) {
        self.rebalance.iter_mut().for_each(|rebalance| rebalance.halt(Idle::CoordinatorLost));
    }

    /// Records for other engines on the same ledger what this one does: that it drains, or what its rebalance
    /// will still move. They use it to compute their shares. `ends`: it moves nothing more.
    pub(super) fn tell_others(&mut self, ends: bool, shared: &mut Shared) {
        let ends = ends || self.is_over();
        if let Some(rebalance) = &mut self.rebalance {
            let settles = matches!(self.phase, Phase::Settling(_));
            rebalance.promise(settles, ends, &mut shared.ledger);
        } else if self.counted == ends {
            self.counted = !ends;
            shared.drains = if ends { shared.drains.saturating_sub(1) } else { shared.drains.saturating_add(1) };
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never below 0, and far below 2^53")]
fn rounded_up(number: f64) -> u64 {
    // Without the subtraction, an error in the last bit could add a server.
    (number.max(0.0) - 1e-6).ceil().max(0.0) as u64
}
