//! One object storage: what its drains share.
//!
//! Guarantees
//! - The ledger outlives the last drain for a while, so that a drain that follows at once does not send
//!   everything to the nodes the last one has just filled.
//! - Every drain numbers its modules itself; here a module has one number for all of them, by its name.
//! - Engines take over newer reports that others have seen. A drain sends only the limits of its own modules
//!   and the variables of its own sticky rules, so what others sent of a node is added to each view: a limit
//!   one drain knows is kept by all.

use std::collections::{BTreeMap, HashMap};

use handoff_core::ledger::Count;
use handoff_core::time::Micros;
use handoff_core::{Capacity, ClusterView, Config, ModuleId, NodeView, Scope, Shared};

#[derive(Debug)]
pub(super) struct Storage {
    /// Names, ledger, limiter.
    pub(super) shared: Shared,
    /// An event came in: every drain on it may have something to decide.
    pub(super) changed: bool,
    modules: HashMap<String, ModuleId>,
    nodes: HashMap<String, Known>,
    drains: usize,
    idle_since: Micros,
}

/// What all drains together know of a node and need not all know.
#[derive(Debug, Default)]
struct Known {
    /// Of this incarnation.
    started_at_ms: Option<i64>,
    /// Current number and limit.
    limits: BTreeMap<ModuleId, (f64, f64)>,
    env: BTreeMap<String, String>,
}

impl Storage {
    /// The limiter takes mode and ceiling from the first drain.
    pub(super) fn new(config: &Config, now: Micros) -> Self {
        Storage {
            shared: Shared::new(config),
            changed: false,
            modules: HashMap::new(),
            nodes: HashMap::new(),
            drains: 0,
            idle_since: now,
        }
    }

    /// Another drain, with these modules: their numbers here.
    pub(super) fn joined(&mut self, modules: &[String]) -> Vec<ModuleId> {
        self.drains += 1;
        let mut ids = Vec::with_capacity(modules.len());
        for name in modules {
            let next = ModuleId(u32::try_from(self.modules.len()).unwrap_or(u32::MAX));
            ids.push(*self.modules.entry(name.clone()).or_insert(next));
        }
        ids
    }

    pub(super) fn left(&mut self, now: Micros) {
        self.drains = self.drains.saturating_sub(1);
        self.idle_since = now;
        self.changed = true;
    }

    /// When it is to be forgotten, if no drain comes.
    pub(super) fn forgotten_at(&self, remember: Micros) -> Option<Micros> {
        (self.drains == 0).then(|| self.idle_since + remember)
    }

    /// Names of nodes and modules.
    pub(super) fn names(&self) -> usize {
        self.shared.names.len().max(self.nodes.len()) + self.modules.len()
    }

    /// The same, with these modules.
    pub(super) fn names_with(&self, modules: &[String]) -> usize {
        self.names() + modules.iter().filter(|name| !self.modules.contains_key(*name)).count()
    }

    /// How many modules there are, over all drains.
    pub(super) fn module_count(&self) -> u32 {
        u32::try_from(self.modules.len()).unwrap_or(u32::MAX)
    }

    /// Adds to a drain's view what other drains know. Its modules are numbered as here already.
    pub(super) fn complete(&mut self, view: &mut ClusterView) {
        for node in &mut view.nodes {
            let known = self.nodes.entry(node.name.clone()).or_default();
            known.learn(node);
            let id = self.shared.names.get(&node.name);
            let newer = id.and_then(|id| self.shared.ledger.newest(id)).filter(|newer| newer.stamp_ms > node.stamp_ms);
            if let Some(newer) = newer.filter(|newer| newer.started_at_ms == node.started_at_ms) {
                let draining = node.draining || newer.draining;
                // The missing modules are those that this drain asked for.
                let missing = std::mem::take(&mut node.missing);
                *node = NodeView { connected: node.connected, draining, missing, ..newer.clone() };
            }
            // Servers that were sent there after the number was reported may count twice until the drain's
            // next view. That is better than not counting them.
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
