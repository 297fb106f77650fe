//! The dry run: the target of every server, without any start.
//!
//! Guarantee: the choices are those of [`crate::placement`], in the drain's order. Each choice counts in the
//! projection of the next. Time and memory are linear in the number of servers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Config, Goal};
use crate::engine::ServerSpec;
use crate::engine::classes::classify;
use crate::engine::rebalance::Rebalance;
use crate::event::EngineError;
use crate::ids::{NodeId, NodeTable};
use crate::ledger::Ledger;
use crate::pending::Pending;
use crate::placement::{Access, Choice, Placement};
use crate::reason::Reason;
use crate::report::Balance;
use crate::time::Micros;
use crate::view::ClusterView;

/// The targets of all servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Node names; assignments are indices into this list.
    pub targets: Vec<Arc<str>>,
    /// Each server's target, or the reason why it has none, in the order of ids.
    pub assignments: Vec<Result<NodeId, Reason>>,
    /// Servers per target, in the order of `targets`.
    pub per_target: Vec<u64>,
    /// Servers without a target, by reason.
    pub reasons: BTreeMap<Reason, u64>,
    /// Only in the plan of a rebalance.
    pub balance: Option<Balance>,
}

/// Plans a drain or a rebalance of `servers` on the cluster in `view`.
///
/// # Errors
/// [`EngineError::Invalid`] with every problem of `config`, `servers` and `view`.
pub fn plan(config: &Config, servers: &[ServerSpec], view: ClusterView) -> Result<Plan, EngineError> {
    let (classes, specs) = classify(config, servers)?;
    view.validate().map_err(|problems| EngineError::Invalid { problems })?;
    let mut names = NodeTable::default();
    let mut ledger = Ledger::default();
    let mut pending = Pending::new(classes.len(), &specs);
    let mut placement = Placement::new(classes);
    placement.update(view, Micros::ZERO, &mut names, &mut ledger);
    let mut rebalance =
        (config.goal == Goal::Rebalance).then(|| Rebalance::new(&placement, config, &mut names, &ledger));
    let moves_left = |rebalance: &Option<Rebalance>| rebalance.as_ref().map_or(u64::MAX, Rebalance::moves);

    let mut assignments = vec![Err(Reason::NoTarget); servers.len()];
    let mut per_target = vec![0; names.len()];
    while let Some(class) = pending.next_class() {
        if moves_left(&rebalance) == 0 {
            break;
        }
        let access = |node| rebalance.as_ref().map_or(Access::Open, |rebalance| rebalance.access(node, &ledger));
        match placement.choose(class, config, &ledger, access) {
            Choice::Node(node) => {
                let Some(id) = pending.take() else { break };
                if let Some(rebalance) = &mut rebalance {
                    rebalance.begin();
                    rebalance.send(node);
                }
                ledger.assign(node, placement.class(class).module);
                assignments[id.index()] = Ok(node);
                per_target[node.index()] += 1;
            }
            Choice::Wait | Choice::Nowhere => pending.skip(),
        }
    }
    let mut reasons = BTreeMap::new();
    let mut due = moves_left(&rebalance);
    for (class, ids) in pending.waiting().filter(|(_, ids)| !ids.is_empty()) {
        let reason = match rebalance {
            Some(_) => placement.reason_below_share(class, config, &ledger),
            None => placement.reason(class, config),
        };
        for id in ids {
            let reason = if due > 0 { reason } else { Reason::Kept };
            due = due.saturating_sub(1);
            *reasons.entry(reason).or_insert(0) += 1;
            assignments[id as usize] = Err(reason);
        }
    }
    let balance = rebalance.as_ref().map(|rebalance| rebalance.report(&placement, config, &names, &ledger));
    let targets =
        (0..names.len()).filter_map(|index| u32::try_from(index).ok()).map(|id| names.name(NodeId(id)).clone());
    Ok(Plan { targets: targets.collect(), assignments, per_target, reasons, balance })
}
