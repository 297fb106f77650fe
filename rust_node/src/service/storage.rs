//! One object storage: what its drains share.
//!
//! Guarantees
//! - The ledger is kept for a while after the last drain, so that the next drain does not send all servers to
//!   the nodes that the last one has just filled.
//! - Every drain has its own module numbers. Here each module name has one number for all drains.
//! - Engines use newer reports that other drains have received. A drain sends only the limits of its own
//!   modules and the variables of its own sticky rules. So each view is completed with what other drains have
//!   sent about a node, and all drains respect a limit that one of them knows.

use std::collections::{BTreeMap, HashMap};

use handoff_core::ledger::Count;
use handoff_core::time::Micros;
use handoff_core::{Capacity, ClusterView, Config, ModuleId, NodeView, Scope, Shared};

#[derive(Debug)]
pub(super) struct Storage {
    /// Names, ledger, limiter.
    pub(super) shared: Shared,
    /// An event has arrived, so every drain on this storage may have something to decide.
    pub(super) changed: bool,
    modules: HashMap<String, ModuleId>,
    nodes: HashMap<String, Known>,
    /// `max_concurrency` of each drain.
    ceilings: Vec<u32>,
    idle_since: Micros,
}

/// What some drains know of a node and others may not know.
#[derive(Debug, Default)]
struct Known {
    /// The start time of the node to which these facts apply.
    started_at_ms: Option<i64>,
    /// The current number and the limit of each module.
    limits: BTreeMap<ModuleId, (f64, f64)>,
    env: BTreeMap<String, String>,
}

impl Storage {
    pub(super) fn new(config: &Config, now: Micros) -> Self {
        Storage {
            shared: Shared::new(config),
            changed: false,
            modules: HashMap::new(),
            nodes: HashMap::new(),
            ceilings: Vec::new(),
            idle_since: now,
        }
    }

    /// Adds a drain with these modules. Returns their numbers on this storage. Of several drains at the same time the
    /// first decides the mode of the limiter, and the highest ceiling applies.
    pub(super) fn joined(&mut self, config: &Config, modules: &[String]) -> Vec<ModuleId> {
        let Config { concurrency, max_concurrency, learnt, .. } = *config;
        self.shared.limiter.join(concurrency, max_concurrency, learnt, self.ceilings.is_empty());
        self.ceilings.push(max_concurrency);
        self.set_room();
        let mut ids = Vec::with_capacity(modules.len());
        for name in modules {
            let next = ModuleId(u32::try_from(self.modules.len()).unwrap_or(u32::MAX));
            ids.push(*self.modules.entry(name.clone()).or_insert(next));
        }
        ids
    }

    /// Removes a drain with this `max_concurrency`.
    pub(super) fn left(&mut self, ceiling: u32, now: Micros) {
        if let Some(index) = self.ceilings.iter().position(|&other| other == ceiling) {
            self.ceilings.swap_remove(index);
        }
        self.set_room();
        self.idle_since = now;
        self.changed = true;
    }

    fn set_room(&mut self) {
        self.shared.limiter.set_room(self.ceilings.iter().fold(0, |sum, ceiling| sum.saturating_add(*ceiling)));
    }

    /// When the storage will be forgotten if no drain comes.
    pub(super) fn forgotten_at(&self, remember: Micros) -> Option<Micros> {
        self.ceilings.is_empty().then(|| self.idle_since + remember)
    }

    pub(super) fn names(&self) -> usize {
        self.shared.names.len().max(self.nodes.len()) + self.modules.len()
    }

    /// The same after adding these modules.
    pub(super) fn names_with(&self, modules: &[String]) -> usize {
        self.names() + modules.iter().filter(|name| !self.modules.contains_key(*name)).count()
    }

    /// The number of modules of all drains.
    pub(super) fn module_count(&self) -> u32 {
        u32::try_from(self.modules.len()).unwrap_or(u32::MAX)
    }

    /// Adds what other drains know to a drain's view, whose modules already have the numbers of this storage.
    /// Called once for each view, when an engine takes it: the engine reports the view to the ledger, from which
    /// the other engines adopt it.
    pub(super) fn complete(&mut self, view: &mut ClusterView) {
        for node in &mut view.nodes {
            let known = self.nodes.entry(node.name.clone()).or_default();
            known.learn(node);
            let id = self.shared.names.get(&node.name);
            let newest = id.and_then(|id| self.shared.ledger.newest(id));
            let newer = newest.filter(|newest| newest.counted_ms() > node.counted_ms());
            if let Some(newer) = newer.filter(|newer| newer.started_at_ms == node.started_at_ms) {
                node.adopt(newer);
            }
            // Servers that were sent to the node after the report may count twice until the drain's next
            // view. That is better than not counting them.
            let assigned = |module| {
                let count = Count::Limited(Scope::Module(module));
                id.map_or(0, |id| self.shared.ledger.assigned_of(id, count))
            };
            known.add(node, assigned);
        }
    }
}

impl Known {
    fn learn(&mut self, node: &NodeView) {
        if self.started_at_ms != node.started_at_ms {
            *self = Known { started_at_ms: node.started_at_ms, ..Known::default() };
        }
        for capacity in &node.capacity {
            if let Scope::Module(module) = capacity.scope {
                self.limits.insert(module, (capacity.current, capacity.limit));
            }
        }
        self.env.extend(node.env.iter().cloned());
    }

    fn add(&self, node: &mut NodeView, assigned: impl Fn(ModuleId) -> u32) {
        for (module, (current, limit)) in &self.limits {
            let scope = Scope::Module(*module);
            if node.capacity.iter().all(|capacity| capacity.scope != scope) {
                let current = current + f64::from(assigned(*module));
                node.capacity.push(Capacity { scope, current, limit: *limit });
            }
        }
        for (name, value) in &self.env {
            if node.env(name).is_none() {
                node.env.push((name.clone(), value.clone()));
            }
        }
    }
}
