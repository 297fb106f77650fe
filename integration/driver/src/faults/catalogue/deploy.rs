//! Deploys that do more than stop one node.

use crate::Result;
use crate::faults::scene::Scene;
use crate::faults::{Fault, MOVES_ALL, RESERVED_BOUND_S, Setup, USUAL};

/// Between the first and the second node that are told to stop.
const SOON_MS: u64 = 500;

/// How long the nodes of a cluster may take when all of them stop: nothing is moved, and 120 writes are
/// short.
const WHOLE_CLUSTER_US: u64 = 5_000_000;

/// The source and its two targets are disconnected for 3 s.
fn disconnected(scene: &mut Scene) -> Result<()> {
    let part = scene.random.within(0.1, 0.5);
    let source = scene.source();
    let others: Vec<_> = scene.stage.apps.iter().copied().filter(|&id| id != source).collect();
    scene.terminate(source)?;
    scene.await_moved(part)?;
    for &other in &others {
        scene.part(source, other)?;
    }
    scene.let_pass(3_000, "the source has no connection to its targets")?;
    if scene.cluster.node_mut(source).has_ended()? {
        scene.broken.push("the source had ended before its targets were back".into());
    }
    for &other in &others {
        scene.heal(source, other)?;
    }
    Ok(())
}

/// Every node stops. Fresh ones start when all are gone.
fn whole_cluster(scene: &mut Scene) -> Result<()> {
    let apps = scene.stage.apps.clone();
    for &id in &apps {
        scene.terminate(id)?;
    }
    for drain in scene.drains()? {
        let took_us = drain.gone_us.saturating_sub(drain.sigterm_us);
        if took_us > WHOLE_CLUSTER_US {
            let label = &scene.cluster.node(drain.node).config.label;
            scene.broken.push(format!("{label} took {} ms to stop, with no node to move servers to", took_us / 1_000));
        }
    }
    scene.start_fresh(2)
}

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "slow-child",
        done: "The source is told to stop. A child that its application stops before the servers takes 3 s.",
        happens: "All servers are moved, in what is left of the time.",
        setup: Setup { slow_child_ms: 3_000, ..MOVES_ALL },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "two-within-a-second",
        done: "The source is told to stop, and half a second later one of two targets, which has no servers. On both, a child takes \
               3 s to stop before the servers are moved.",
        happens: "Nothing is moved to the target that is going down; everything goes to the other one.",
        setup: Setup { slow_child_ms: 3_000, ..MOVES_ALL },
        inject: |scene| {
            scene.terminate(scene.source())?;
            scene.let_pass(SOON_MS, "another node is about to be told")?;
            scene.terminate(scene.target())
        },
    },
    Fault {
        name: "disconnected-by-cluster-manager",
        done: "Both targets disconnect the source at a random point of its drain, as a cluster manager does with a pod that terminates, and \
               connect to it again 3 s later.",
        happens: "What runs is left running, and servers in flight are held; the drain goes on when a target is connected again.",
        // Slow enough for the drain to be under way when the connections are lost.
        setup: Setup { slots: Some(4), latency_ms: 40, clients: 1, ..MOVES_ALL },
        inject: disconnected,
    },
    Fault {
        name: "release-lacks-a-module",
        done: "The source is told to stop. One of two targets runs a release that lacks the module of half of the servers.",
        happens: "Servers with that module go to the target that has it; no other is tried.",
        setup: Setup { lacks_module: Some(1), ..MOVES_ALL },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "stopped-by-call",
        done: "The source is told to stop by `:init.stop/0`, as by `bin/my_app stop`, without a signal.",
        happens: "As on SIGTERM: all servers are moved.",
        setup: MOVES_ALL,
        inject: |scene| scene.stop(scene.source()),
    },
    Fault {
        name: "restarted-in-turn",
        done: "The source is restarted inside its virtual machine by `:init.restart/0`, as by `bin/my_app restart`. When it is back, the \
               only other node is told to stop.",
        happens: "All servers move away, and all move back: the node that was restarted takes servers again.",
        setup: Setup { nodes: 2, ..MOVES_ALL },
        inject: |scene| {
            scene.restart(scene.source())?;
            scene.terminate(scene.target())
        },
    },
    Fault {
        name: "whole-cluster",
        done: "All three nodes are told to stop at the same moment. Fresh nodes start when they are gone.",
        happens: "Nothing is moved, and no time is lost: nodes stop as without a drain. The fresh nodes find every server.",
        setup: Setup { full: 2, bound_s: RESERVED_BOUND_S, ..USUAL },
        inject: whole_cluster,
    },
];
