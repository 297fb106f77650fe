//! Deploys that do more than stop one node.

use crate::Result;
use crate::faults::scene::Scene;
use crate::faults::{Expected, Fault, MOVES_ALL, RESERVED_BOUND_S, Setup, USUAL};

/// The time between telling the first and the second node to stop.
const SOON_MS: u64 = 500;

/// The time limit for the nodes of a cluster to end when all of them stop: no server is moved, and 120 writes
/// are fast.
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
        happens: "All servers are moved in the remaining time.",
        setup: Setup { slow_child_ms: 3_000, ..MOVES_ALL },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "two-within-a-second",
        done: "The source is told to stop, and half a second later one of two targets, which has no servers. On both, a child takes \
               3 s to stop before the servers are moved.",
        happens: "No server is moved to the stopping target; all go to the other one.",
        setup: Setup { slow_child_ms: 3_000, expected: &[Expected::SparesTarget], ..MOVES_ALL },
        inject: |scene| {
            scene.terminate(scene.source())?;
            scene.let_pass(SOON_MS, "another node will be told")?;
            scene.terminate(scene.target())
        },
    },
    Fault {
        name: "disconnected-by-cluster-manager",
        done: "Both targets disconnect the source at a random point of its drain, as a cluster manager does with a pod that terminates, and \
               connect to it again 3 s later.",
        happens: "Running servers are not stopped, and servers that are already stopped are held. The drain continues when a \
                  target is connected again.",
        // Slow enough that the drain still runs when the connections are lost.
        setup: Setup { slots: Some(4), latency_ms: 40, clients: 1, ..MOVES_ALL },
        inject: disconnected,
    },
    Fault {
        name: "release-lacks-a-module",
        done: "The source is told to stop. One of two targets runs a release that lacks the module of half of the servers.",
        happens: "Servers with that module go to the target that has it; the other target is not tried for them.",
        setup: Setup { lacks_module: Some(1), ..MOVES_ALL },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "stopped-by-call",
        done: "The source is told to stop by `:init.stop/0`, as `bin/my_app stop` does, without a signal.",
        happens: "All servers are moved, as after SIGTERM.",
        setup: MOVES_ALL,
        inject: |scene| scene.stop(scene.source()),
    },
    Fault {
        name: "restarted-in-turn",
        done: "The source is restarted inside its virtual machine by `:init.restart/0`, as `bin/my_app restart` does. When it \
               is back, the only other node is told to stop.",
        happens: "All servers move to the other node and then back, because the restarted node takes servers again.",
        setup: Setup { nodes: 2, ..MOVES_ALL },
        inject: |scene| {
            scene.restart(scene.source())?;
            scene.terminate(scene.target())
        },
    },
    Fault {
        name: "whole-cluster",
        done: "All three nodes are told to stop at the same moment. Fresh nodes start when they are gone.",
        happens: "No server is moved, and nodes stop as fast as without a drain. The fresh nodes find every server.",
        setup: Setup { full: 2, bound_s: RESERVED_BOUND_S, expected: &[Expected::MovesNone], ..USUAL },
        inject: whole_cluster,
    },
];
