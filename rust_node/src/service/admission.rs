//! Accepts or refuses a drain.
//!
//! Guarantee: a refused drain leaves nothing behind. An accepted drain is within every limit of the service.

use std::sync::Arc;

use handoff_core::time::Micros;
use handoff_wire::{DrainOpen, Opened, RefuseReason};
use tracing::warn;

use super::drain::Drain;
use super::storage::Storage;
use super::{Key, Output, Service};
use crate::metrics::Metrics;

impl Service {
    pub(super) fn open(&mut self, now: Micros, key: Key, open: DrainOpen) {
        let (id, drainer) = (key.id, open.drainer.clone());
        if let Some(reason) = self.objection(&key, &open) {
            Metrics::count(&self.metrics.refused, "drain");
            self.note_refusal(now, &key.peer, Some(&open.supervisor), reason.to_string());
            warn!(node = %key.peer, id = id.0, supervisor = %open.supervisor, %reason, "drain refused");
            return self.refuse(key.peer, drainer, id, reason);
        }
        self.make_room_for(&open.storage);
        let storage = self.storages.entry(open.storage.clone()).or_insert_with(|| Storage::new(&open.config, now));
        let modules = storage.joined(&open.config, &open.modules);
        let peer = Arc::clone(&key.peer);
        self.outputs.push(Output::Monitor { key: key.clone(), drainer: drainer.clone() });
        self.outputs.push(Output::Send { peer, to: drainer, message: Box::new(Opened { id }.into()) });
        self.drains.insert(key, Drain::new(open, modules, now));
        self.observe();
    }

    /// There may be at most as many storages as drains. If there are more, the storage that has had no drain
    /// for the longest time is forgotten early.
    fn make_room_for(&mut self, storage: &str) {
        if self.storages.len() < self.limits.drains || self.storages.contains_key(storage) {
            return;
        }
        let idle = self.storages.iter().filter_map(|(name, storage)| Some((storage.forgotten_at(Micros::ZERO)?, name)));
        if let Some(name) = idle.min().map(|(_, name)| name.clone()) {
            self.storages.remove(&name);
        }
    }

    fn objection(&self, key: &Key, open: &DrainOpen) -> Option<RefuseReason> {
        let full = |what: &str, limit: u64| Some(RefuseReason::Full { what: what.to_owned(), limit });
        if self.stopping {
            return Some(RefuseReason::Stopping);
        }
        if self.drains.contains_key(key) {
            return Some(RefuseReason::Duplicate);
        }
        if open.drainer.node.name != *key.peer {
            let problem = "drainer: takes a process of the draining node".to_owned();
            return Some(RefuseReason::Invalid { problems: vec![problem] });
        }
        if self.drains.len() >= self.limits.drains {
            return full("drains", self.limits.drains as u64);
        }
        let of_node = self.drains.keys().filter(|other| other.peer == key.peer).count();
        if of_node >= self.limits.drains_per_node {
            return full("drains of a node", self.limits.drains_per_node as u64);
        }
        let servers: u64 = self.drains.values().map(|drain| u64::from(drain.count)).sum();
        if servers + u64::from(open.count) > self.limits.servers {
            return full("servers of all drains", self.limits.servers);
        }
        let storage = self.storages.get(&open.storage);
        if storage.map_or(open.modules.len(), |storage| storage.names_with(&open.modules)) > self.limits.names {
            return full("names of nodes and modules", self.limits.names as u64);
        }
        let mut problems = open.config.validate().err().unwrap_or_default();
        if open.modules.len() != open.config.modules as usize {
            problems.push(format!("modules: got {} names for {}", open.modules.len(), open.config.modules));
        }
        (!problems.is_empty()).then_some(RefuseReason::Invalid { problems })
    }
}
