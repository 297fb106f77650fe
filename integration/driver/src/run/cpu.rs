//! The processor time that drains cost, by node.

use super::stage::Stage;
use crate::Result;
use crate::beam::Cluster;
use crate::beam::commands::Command;
use crate::beam::node_config::Role;
use crate::cpu::Cpu;
use crate::history::{Drain, NodeId};

/// The processor time of each node so far. For a node that has ended, the last measurement.
fn read(cluster: &mut Cluster) -> Vec<f64> {
    (0..cluster.nodes().len()).map(|id| cluster.node_mut(NodeId(id)).cpu_ms()).collect()
}

/// Starts a measurement: resets the store's statistics, and returns the nodes' processor time so far.
pub fn measure_from_here(cluster: &mut Cluster, stage: &Stage) -> Result<Vec<f64>> {
    if let Some(store) = stage.store {
        cluster.call(store, Command::ResetStoreStats)?;
    }
    Ok(read(cluster))
}

/// The processor time of nodes since `before`, while `drains` ran.
pub fn since(before: &[f64], cluster: &mut Cluster, stage: &Stage, drains: &[Drain]) -> Cpu {
    let mut cpu = Cpu::default();
    for (id, now) in read(cluster).into_iter().enumerate() {
        let used = (now - before.get(id).copied().unwrap_or(0.0)).max(0.0);
        let id = NodeId(id);
        if drains.iter().any(|drain| drain.node == id) {
            cpu.sources += used;
        } else if id == stage.client {
            cpu.clients += used;
        } else if cluster.node(id).config.role == Role::App {
            cpu.targets += used;
        }
    }
    cpu
}
