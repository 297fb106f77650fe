//! The numbers that the drains of one group have received for each node, and the servers that they have sent
//! there. Independent of the engine's ledger.

use std::collections::VecDeque;

use handoff_core::time::Micros;
use handoff_core::{Capacity, NodeView, Scope};

use crate::cluster::NodeIndex;

#[derive(Debug, Clone, Default)]
struct NodeEntry {
    /// The count time of the newest numbers that any drain of the group has received, and the limits in them.
    report: Option<(Micros, Vec<Capacity>)>,
    /// Attempts under way, by module.
    in_flight: Vec<u32>,
    /// When servers started there, and their modules, recorded when the drain receives the outcome.
    arrived: VecDeque<(Micros, u32)>,
}

#[derive(Debug, Clone)]
pub struct Ledger {
    entries: Vec<NodeEntry>,
}

impl Ledger {
    /// An empty ledger for this many nodes.
    pub fn new(nodes: usize, modules: usize) -> Self {
        Ledger { entries: vec![NodeEntry { in_flight: vec![0; modules], ..NodeEntry::default() }; nodes] }
    }

    /// Records that a drain of the group receives a node's numbers, counted at that time, in a heartbeat or
    /// as an answer.
    pub fn shown(&mut self, node: NodeIndex, counted: Micros, view: &NodeView) {
        let report = &mut self.entries[node].report;
        if report.as_ref().is_none_or(|(known, _)| *known < counted) {
            *report = Some((counted, view.capacity.clone()));
        }
    }

    /// The limit, if any, that one more server of `module` exceeds, by the numbers received and the servers
    /// sent since then. Because of clock errors, a heartbeat may count as written up to `grace` later than it
    /// was.
    pub fn over_limit(&self, node: NodeIndex, module: u32, grace: Micros) -> Option<String> {
        let (written, limits) = self.entries[node].report.as_ref()?;
        let written = *written + grace;
        limits.iter().find_map(|limit| {
            let since = match limit.scope {
                Scope::Total => self.since(node, None, written),
                Scope::Module(counted) if counted.0 == module => self.since(node, Some(module), written),
                Scope::Module(_) => return None,
            };
            (limit.current + f64::from(since) + 1.0 > limit.limit).then(|| format!("{limit:?} with {since} sent since"))
        })
    }

    pub fn start(&mut self, node: NodeIndex, module: u32) {
        self.entries[node].in_flight[module as usize] += 1;
    }

    pub fn end(&mut self, node: NodeIndex, module: u32) {
        self.entries[node].in_flight[module as usize] -= 1;
    }

    /// Records that a server has started on a node at that time.
    pub fn arrive(&mut self, node: NodeIndex, module: u32, at: Micros) {
        self.entries[node].arrived.push_back((at, module));
    }

    /// Records that the node restarts and has lost its servers. Attempts in flight end as usual.
    pub fn forget(&mut self, node: NodeIndex) {
        self.entries[node].arrived.clear();
    }

    /// The number of servers of `module`, or of all modules, that a heartbeat written at `written` cannot
    /// include.
    fn since(&self, node: NodeIndex, module: Option<u32>, written: Micros) -> u32 {
        let entry = &self.entries[node];
        let counts = |of: u32| module.is_none_or(|module| module == of);
        let in_flight: u32 = (0..).zip(&entry.in_flight).filter(|(of, _)| counts(*of)).map(|(_, count)| count).sum();
        let arrived = entry.arrived.iter().rev().filter(|(at, of)| *at > written && counts(*of)).count();
        in_flight + u32::try_from(arrived).unwrap_or(u32::MAX)
    }
}
