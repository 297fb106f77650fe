//! Waits after a deploy with the option `rebalance` until every node has its share.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::Result;
use crate::beam::Cluster;
use crate::beam::node_config::Role;
use crate::history::{Drain, NodeId, lives};
use crate::progress::ModeProgress;

/// The time limit for nodes to notice that nothing changes any more, and to move their excess.
const BOUND: Duration = Duration::from_secs(120);

/// The interval of polls of the records.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The largest relative difference of a node from its share: the tolerance of the nodes.
const TOLERANCE: f64 = 0.05;

/// Waits until all running application nodes have about equally many servers, or notes that it took too long.
pub fn wait(cluster: &mut Cluster, drains: &[Drain], progress: &ModeProgress, notes: &mut Vec<String>) -> Result<()> {
    progress.step("waiting until every node has its share");
    let until = Instant::now() + BOUND;
    let mut next = Instant::now();
    let balanced = cluster.wait("every node having its share", BOUND * 2, |cluster| {
        progress.calls(cluster.heard.calls);
        if Instant::now() < next {
            return Ok(None);
        }
        next = Instant::now() + LOOK_EVERY;
        let counts = counts(cluster, drains);
        Ok((is_even(&counts) || Instant::now() >= until).then(|| is_even(&counts)))
    })?;
    if !balanced {
        notes.push(format!("shares were not within {TOLERANCE} of each other after {} s", BOUND.as_secs()));
    }
    Ok(())
}

/// The number of servers of each running application node, from the records.
fn counts(cluster: &Cluster, drains: &[Drain]) -> Vec<usize> {
    let mut counts: BTreeMap<NodeId, usize> = cluster.alive_as(Role::App).map(|id| (id, 0)).collect();
    for life in lives(&cluster.heard.records, drains).values().flatten().filter(|life| life.end_us.is_none()) {
        if let Some(count) = counts.get_mut(&life.node) {
            *count += 1;
        }
    }
    counts.into_values().collect()
}

/// Whether no node differs from the mean by more than the tolerance, or by more than one server.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn is_even(counts: &[usize]) -> bool {
    let mean = counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64;
    counts.iter().all(|&count| (count as f64 - mean).abs() <= (mean * TOLERANCE).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_within_the_tolerance_or_one_server() {
        assert!(is_even(&[100, 105, 95, 100]));
        assert!(!is_even(&[134, 133, 133, 0]));
        assert!(!is_even(&[100, 106, 94, 100]));
        assert!(is_even(&[3, 4, 3]));
    }
}
