//! The kinds of deploy, with their nodes and scripts.

use crate::cluster::{NodeIndex, NodeSpec};
use crate::scenario::{Do, When};

/// The release before and after a deploy.
pub const OLD_RELEASE: &str = "1";
/// See [`OLD_RELEASE`].
pub const NEW_RELEASE: &str = "2";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deploy {
    /// One after the other. Each new node starts before an old one stops.
    Surge,
    /// One after the other. The old node stops first and restarts under the same name.
    InPlace,
    /// All new nodes start, then all old ones drain together.
    BlueGreen,
    /// This many nodes drain one after the other, without replacement.
    ScaleIn(usize),
    /// All nodes drain together, without replacement.
    WholeStop,
    /// One node drains. Half a second later the other region disappears without notice.
    RegionLoss,
    Single,
}

/// How long a new node takes until other nodes see it, with a margin.
const STARTUP_MS: u64 = 1_500;
/// From the end of a drain until the node is gone.
const SHUTDOWN_MS: u64 = 100;

/// A healthy node with the library.
pub fn node(index: usize, generation: &'static str, age_ms: i64) -> NodeSpec {
    NodeSpec {
        name: format!("n{index:04}@sim"),
        generation,
        region: "a",
        age_ms,
        skew_ms: 0,
        heartbeat_every_ms: 10_000,
        heartbeat_delay_ms: 50,
        library: true,
        limit: None,
        module_limit: None,
        cpu: None,
        zone: None,
        not_ready: Vec::new(),
        suspended: Vec::new(),
    }
}

impl Deploy {
    /// The nodes of a deploy of `old` nodes: first the old ones, then those that are to start.
    pub fn nodes(self, old: usize) -> Vec<NodeSpec> {
        let fresh = match self {
            Deploy::Surge | Deploy::BlueGreen => old,
            _ => 0,
        };
        let before = (0..old).map(|index| node(index, OLD_RELEASE, 86_400_000));
        let mut nodes: Vec<NodeSpec> =
            before.chain((old..old + fresh).map(|index| node(index, NEW_RELEASE, -1))).collect();
        if self == Deploy::RegionLoss {
            nodes.iter_mut().skip(1).step_by(2).for_each(|node| node.region = "b");
        }
        nodes
    }

    /// What happens in a deploy of `old` nodes.
    pub fn script(self, old: usize) -> Vec<(When, Do)> {
        let mut script = Vec::new();
        // The time of the previous node's drain, or the start of the run.
        let next = |node: NodeIndex, ms: u64| match node.checked_sub(1) {
            Some(before) => When::After(before, ms),
            None => When::At(ms),
        };
        match self {
            Deploy::Surge => {
                for node in 0..old {
                    script.push((next(node, SHUTDOWN_MS), Do::Start(old + node)));
                    script.push((next(node, SHUTDOWN_MS + STARTUP_MS), Do::Drain(node)));
                    script.push((When::After(node, SHUTDOWN_MS), Do::Kill(node)));
                }
            }
            Deploy::InPlace => {
                for node in 0..old {
                    script.push((next(node, SHUTDOWN_MS + 2 * STARTUP_MS), Do::Drain(node)));
                    script.push((When::After(node, SHUTDOWN_MS), Do::Kill(node)));
                    script.push((When::After(node, SHUTDOWN_MS + STARTUP_MS), Do::Upgrade(node)));
                }
            }
            Deploy::BlueGreen => {
                script.extend((old..2 * old).map(|node| (When::At(0), Do::Start(node))));
                script.extend((0..old).map(|node| (When::At(STARTUP_MS), Do::Drain(node))));
                script.extend((0..old).map(|node| (When::After(node, SHUTDOWN_MS), Do::Kill(node))));
            }
            Deploy::ScaleIn(leaving) => {
                for node in 0..leaving {
                    script.push((next(node, SHUTDOWN_MS + STARTUP_MS), Do::Drain(node)));
                    script.push((When::After(node, SHUTDOWN_MS), Do::Kill(node)));
                }
            }
            Deploy::WholeStop => script.extend((0..old).map(|node| (When::At(0), Do::Drain(node)))),
            Deploy::RegionLoss => {
                script.push((When::At(0), Do::Drain(0)));
                script.extend((1..old).step_by(2).map(|node| (When::At(500), Do::Vanish(node))));
            }
            Deploy::Single => script.push((When::At(0), Do::Drain(0))),
        }
        script
    }
}
