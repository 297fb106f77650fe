//! Choice: which of the eligible nodes a server goes to.
//!
//! Guarantee: a chosen node is eligible by DurableServer's rules, connected, and has room for one more server
//! by projection (reported load plus everything assigned since then). Among such nodes the order is: sticky
//! level, freshness tier, lowest projected load, the source's region, name. The same view, ledger and
//! sequence of calls give the same choices.
//!
//! Servers with the same module and sticky signature form a [`Class`]: they have the same candidates. A class
//! keeps its candidates in a heap. The keys can only grow while the ledger does not shrink, so a choice costs
//! O(log nodes), and a plan of a million servers is a million such steps.

mod candidate;
mod load;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::config::Config;
use crate::eligibility::{self, Ineligible, Query};
use crate::freshness;
use crate::ids::{ModuleId, NodeId, NodeTable, StickyId};
use crate::ledger::Ledger;
use crate::reason::Reason;
use crate::time::Micros;
use crate::view::{ClusterView, NodeView};

use candidate::{Candidate, Key};
pub(crate) use load::{carried, headroom};

use load::Metric;

/// Servers with the same candidates: same module, same sticky signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Their module.
    pub module: ModuleId,
    /// Their sticky signature.
    pub sticky: StickyId,
}

/// Whether a node may be used at this moment, apart from eligibility. The caller decides by caps and rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The node may be used.
    Open,
    /// The node may be used soon: a server waits for it instead of going to a node of a worse rank.
    Soon,
    /// The node may not be used in the foreseeable future: another node is chosen.
    Shut,
}

/// The result of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This node.
    Node(NodeId),
    /// No node at this moment, but a node that is `Soon` would be chosen.
    Wait,
    /// No node. [`Placement::reason`] has the reason.
    Nowhere,
}

/// The current view, and for each class its candidates.
#[derive(Debug)]
pub struct Placement {
    nodes: Vec<(NodeId, NodeView)>,
    now_ms: i64,
    classes: Vec<Class>,
    pools: Vec<Option<Pool>>,
}

/// The candidates of one class, built on the first use after a view or in a new epoch of the ledger.
#[derive(Debug)]
struct Pool {
    candidates: Vec<Candidate>,
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    epoch: u64,
}

impl Placement {
    /// A placement without nodes, for servers of these classes.
    pub fn new(classes: Vec<Class>) -> Self {
        let pools = classes.iter().map(|_| None).collect();
        Placement { nodes: Vec::new(), now_ms: 0, classes, pools }
    }

    /// Applies a new view: every node's report goes to the ledger, and every class is rebuilt on its next
    /// use.
    pub fn update(&mut self, view: ClusterView, now: Micros, names: &mut NodeTable, ledger: &mut Ledger) {
        self.now_ms = view.now_ms;
        self.nodes = view.nodes.into_iter().map(|node| (names.intern(&node.name), node)).collect();
        for (id, node) in &self.nodes {
            ledger.report(*id, node, now, self.now_ms);
        }
        self.adopt_newer_reports(ledger);
        self.forget_pools();
    }

    /// Marks a node as not connected until a later view.
    pub fn disconnect(&mut self, node: NodeId) {
        for (id, view) in &mut self.nodes {
            if *id == node {
                view.connected = false;
            }
        }
        self.forget_pools();
    }

    /// The nodes of the current view.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeView)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// The source's wall clock at the time of the current view, in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// The class at that index of the list given to [`Placement::new`].
    pub fn class(&self, class: usize) -> Class {
        self.classes[class]
    }

    /// Whether a node reported that it cannot run servers of a class.
    pub fn lacks_module(&self, class: usize, node: NodeId) -> bool {
        let module = self.classes[class].module;
        self.nodes.iter().any(|(id, view)| *id == node && view.lacks(module))
    }

    /// Whether a node may take one more server of a class: eligible, connected, with room.
    pub fn accepts(&mut self, class: usize, node: NodeId, config: &Config, ledger: &Ledger) -> bool {
        self.any_accepts(class, config, ledger, |id| id == node)
    }

    /// Whether any node may take one more server of a class.
    pub fn has_room(&mut self, class: usize, config: &Config, ledger: &Ledger) -> bool {
        self.any_accepts(class, config, ledger, |_| true)
    }

    fn any_accepts(&mut self, class: usize, config: &Config, ledger: &Ledger, asked: impl Fn(NodeId) -> bool) -> bool {
        let module = self.classes[class].module;
        self.build(class, config, ledger);
        let candidates = self.pools[class].iter().flat_map(|pool| &pool.candidates);
        candidates
            .map(|candidate| (candidate, &self.nodes[candidate.node]))
            .any(|(candidate, (id, view))| asked(*id) && candidate.load(*id, view, module, ledger).is_some())
    }

    /// Why a rebalance moves no more servers of a class although its excess is not moved.
    pub fn reason_below_share(&mut self, class: usize, config: &Config, ledger: &Ledger) -> Reason {
        if self.has_room(class, config, ledger) { Reason::NoTarget } else { self.reason(class, config) }
    }

    /// Chooses the target of the next server of a class. `class` is an index into the list given to
    /// [`Placement::new`].
    pub fn choose(
        &mut self,
        class: usize,
        config: &Config,
        ledger: &Ledger,
        access: impl Fn(NodeId) -> Access,
    ) -> Choice {
        let module = self.classes[class].module;
        self.build(class, config, ledger);
        let (nodes, pool) = (&self.nodes, self.pools[class].as_mut());
        let Some(pool) = pool else { return Choice::Nowhere };
        let mut waiting: Vec<(Key, usize)> = Vec::new();
        let mut choice = Choice::Nowhere;
        while let Some(Reverse((key, index))) = pool.heap.pop() {
            if waiting.first().is_some_and(|(first, _)| first.rank() < key.rank()) {
                pool.heap.push(Reverse((key, index)));
                break;
            }
            let candidate = &pool.candidates[index];
            let (id, node) = &nodes[candidate.node];
            let Some(load) = candidate.load(*id, node, module, ledger) else {
                continue;
            };
            let current = key.with_load(load);
            if current > key {
                pool.heap.push(Reverse((current, index)));
                continue;
            }
            match access(*id) {
                Access::Open => {
                    pool.heap.push(Reverse((key, index)));
                    choice = Choice::Node(*id);
                    break;
                }
                Access::Soon => waiting.push((key, index)),
                // The node is not put back into the heap, because it can be used again only after a new view
                // or epoch.
                Access::Shut => {}
            }
        }
        if choice == Choice::Nowhere && !waiting.is_empty() {
            choice = Choice::Wait;
        }
        pool.heap.extend(waiting.into_iter().map(Reverse));
        choice
    }

    /// Chooses the target of a displaced server. Unlike [`Placement::choose`], nodes in `excluded` are
    /// skipped, and a worse rank now is preferred to a better one soon.
    pub fn choose_displaced(
        &mut self,
        class: usize,
        config: &Config,
        ledger: &Ledger,
        excluded: &[NodeId],
        access: impl Fn(NodeId) -> Access,
    ) -> Choice {
        let module = self.classes[class].module;
        self.build(class, config, ledger);
        let Some(pool) = self.pools[class].as_ref() else {
            return Choice::Nowhere;
        };
        let mut best: Option<(Key, NodeId)> = None;
        let mut wait = false;
        for candidate in &pool.candidates {
            let (id, node) = &self.nodes[candidate.node];
            if excluded.contains(id) {
                continue;
            }
            let Some(load) = candidate.load(*id, node, module, ledger) else {
                continue;
            };
            let key = candidate.key.with_load(load);
            match access(*id) {
                Access::Open if best.as_ref().is_none_or(|(known, _)| key < *known) => best = Some((key, *id)),
                Access::Open | Access::Shut => {}
                Access::Soon => wait = true,
            }
        }
        match best {
            Some((_, id)) => Choice::Node(id),
            None if wait => Choice::Wait,
            None => Choice::Nowhere,
        }
    }

    /// True when some class has a node that is eligible and connected, whatever its room.
    pub fn any_target(&self, config: &Config) -> bool {
        self.any_eligible(config, true)
    }

    /// True when some class has a node that would be a target if it were connected.
    pub fn any_out_of_reach(&self, config: &Config) -> bool {
        self.any_eligible(config, false)
    }

    fn any_eligible(&self, config: &Config, connected: bool) -> bool {
        self.classes.iter().any(|class| {
            let query = Query::new(config, class.module, sticky(config, class.sticky));
            let mut nodes = self.nodes.iter().filter(|(_, node)| node.connected == connected);
            nodes.any(|(_, node)| eligibility::check(node, &query, self.now_ms).is_ok())
        })
    }

    /// Why servers of a class have no target: the reason of the node that came closest.
    pub fn reason(&self, class: usize, config: &Config) -> Reason {
        let class = self.classes[class];
        let query = Query::new(config, class.module, sticky(config, class.sticky));
        let nearest = self
            .nodes
            .iter()
            .filter(|(_, node)| node.connected)
            .map(|(_, node)| eligibility::check(node, &query, self.now_ms).err().unwrap_or(Ineligible::Full))
            .max();
        match nearest {
            None | Some(Ineligible::Source | Ineligible::Draining | Ineligible::Unhealthy) => Reason::NoTarget,
            Some(Ineligible::ModuleMissing) => Reason::ModuleMissing,
            Some(Ineligible::Sticky) => Reason::StickyLocked,
            Some(Ineligible::Full) => Reason::Capacity,
        }
    }

    fn build(&mut self, class: usize, config: &Config, ledger: &Ledger) {
        if self.pools[class].as_ref().is_some_and(|pool| pool.epoch == ledger.epoch()) {
            return;
        }
        self.adopt_newer_reports(ledger);
        let Class { module, sticky: signature } = self.classes[class];
        let query = Query::new(config, module, sticky(config, signature));
        let mut candidates: Vec<Candidate> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, (_, node))| node.connected)
            .filter_map(|(index, (_, node))| {
                let standing = eligibility::check(node, &query, self.now_ms).ok()?;
                let tier = freshness::tier(config.prefer, &config.source, node, self.now_ms);
                let near = config.source.region.is_some() && config.source.region == node.region;
                Some(Candidate { node: index, key: Key::new(standing.level, tier, near), metric: Metric::Assigned })
            })
            .collect();
        self.order_by_name(&mut candidates);
        self.agree_on_metrics(&mut candidates, module);
        let mut heap = BinaryHeap::with_capacity(candidates.len());
        for (index, candidate) in candidates.iter().enumerate() {
            let (id, node) = &self.nodes[candidate.node];
            if let Some(load) = candidate.load(*id, node, module, ledger) {
                heap.push(Reverse((candidate.key.with_load(load), index)));
            }
        }
        self.pools[class] = Some(Pool { candidates, heap, epoch: ledger.epoch() });
    }

    /// Another drain may have newer numbers of a node. The ledger counts from these, so the load must use
    /// them, too.
    fn adopt_newer_reports(&mut self, ledger: &Ledger) {
        for (id, node) in &mut self.nodes {
            if let Some(newer) = ledger.newest(*id).filter(|newest| newest.counted_ms() > node.counted_ms()) {
                node.adopt(newer);
            }
        }
    }

    /// A candidate's position in its pool is the last criterion of the order: the name.
    fn order_by_name(&self, candidates: &mut [Candidate]) {
        candidates.sort_by(|a, b| self.nodes[a.node].1.name.cmp(&self.nodes[b.node].1.name));
    }

    /// Loads can be compared only in the same unit. The candidates of one rank use the best unit that all of
    /// them report.
    fn agree_on_metrics(&self, candidates: &mut [Candidate], module: ModuleId) {
        candidates.sort_by_key(|candidate| candidate.key.rank());
        for rank in candidates.chunk_by_mut(|a, b| a.key.rank() == b.key.rank()) {
            let metric = rank
                .iter()
                .map(|candidate| Metric::best(&self.nodes[candidate.node].1, module))
                .max()
                .unwrap_or(Metric::Assigned);
            rank.iter_mut().for_each(|candidate| candidate.metric = metric);
        }
    }

    fn forget_pools(&mut self) {
        self.pools.iter_mut().for_each(|pool| *pool = None);
    }
}

fn sticky(config: &Config, id: StickyId) -> &[crate::config::StickyLevel] {
    config.stickies.get(id.0 as usize).map_or(&[], Vec::as_slice)
}
