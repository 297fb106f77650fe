//! The dry run: where every server would go, without starting anything.
//!
//! Guarantee: the choices are those of [`crate::placement`], in the drain's order, each counted into the projection of the
//! next. Time and memory grow linearly with the number of servers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::engine::{ServerSpec, classify};
use crate::event::EngineError;
use crate::ids::{NodeId, NodeTable};
use crate::ledger::Ledger;
use crate::pending::Pending;
use crate::placement::{Access, Choice, Placement};
use crate::reason::Reason;
use crate::time::Micros;
use crate::view::ClusterView;

/// Who would go where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Node names; assignments are indices into this list.
    pub targets: Vec<Arc<str>>,
    /// Each server's target, or why it has none, in the order of ids.
    pub assignments: Vec<Result<NodeId, Reason>>,
    /// Servers per target, in the order of `targets`.
    pub per_target: Vec<u64>,
    /// Servers without a target, by reason.
    pub reasons: BTreeMap<Reason, u64>,
}

/// Plans a drain of `servers` on the cluster in `view`.
///
/// # Errors
/// [`EngineError::Invalid`] with every problem of the three.
pub fn plan(config: &Config, servers: &[ServerSpec], view: ClusterView) -> Result<Plan, EngineError> {
    let (classes, specs) = classify(config, servers)?;
    view.validate().map_err(|problems| EngineError::Invalid { problems })?;
    let mut names = NodeTable::default();
    let mut ledger = Ledger::default();
    let mut pending = Pending::new(classes.len(), &specs);
    let mut placement = Placement::new(classes);
    placement.update(view, Micros::ZERO, &mut names, &mut ledger);

    let mut assignments = vec![Err(Reason::NoTarget); servers.len()];
    let mut per_target = vec![0; names.len()];
    while let Some(class) = pending.next_class() {
        match placement.choose(class, config, &ledger, |_| Access::Open) {
            Choice::Node(node) => {
                let Some(id) = pending.take() else { break };
                ledger.assign(node, placement.class(class).module);
                assignments[id.index()] = Ok(node);
                per_target[node.index()] += 1;
            }
            Choice::Wait | Choice::Nowhere => pending.skip(),
        }
    }
    let mut reasons = BTreeMap::new();
    for (class, ids) in pending.waiting().filter(|(_, ids)| !ids.is_empty()) {
        let reason = placement.reason(class, config);
        *reasons.entry(reason).or_insert(0) += ids.len() as u64;
        ids.iter().for_each(|id| assignments[*id as usize] = Err(reason));
    }
    let targets =
        (0..names.len()).filter_map(|index| u32::try_from(index).ok()).map(|id| names.name(NodeId(id)).clone());
    Ok(Plan { targets: targets.collect(), assignments, per_target, reasons })
}
