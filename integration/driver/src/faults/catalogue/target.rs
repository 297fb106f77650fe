//! Faults of a node that servers move to.

use crate::Result;
use crate::beam::commands::Outage;
use crate::faults::scene::Scene;
use crate::faults::{Expected, Fault, MOVES_ALL, Setup, USUAL, lasting};

/// The store refuses what one target asks for, until the source has ended.
fn cut_from_store(scene: &mut Scene) -> Result<()> {
    let (source, target) = (scene.source(), scene.target());
    scene.drain_until_moved(0.0, 0.5)?;
    scene.store_refuses(Outage::Node(scene.cluster.node(target).name.clone()))?;
    scene.await_end(source)?;
    scene.store(None)
}

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "target-killed-before",
        done: "One of two targets is killed (SIGKILL) right before the source is told to stop; its heartbeat still looks fresh.",
        happens: "Attempts to move servers to it fail at once or are not made. All servers go to the other target.",
        setup: Setup { expected: &[Expected::SparesTarget], bound_s: USUAL.bound_s, ..MOVES_ALL },
        inject: |scene| {
            scene.kill(scene.target())?;
            scene.terminate(scene.source())
        },
    },
    Fault {
        name: "target-killed-during",
        done: "One of two targets is killed (SIGKILL) at a random point between a fifth and four fifths of the drain.",
        happens: "Servers that were moving to it are tried on the other target. The next sweep finds those that it already had \
                  when its heartbeat has expired.",
        setup: lasting(USUAL),
        inject: |scene| {
            scene.drain_until_moved(0.2, 0.8)?;
            scene.kill(scene.target())
        },
    },
    Fault {
        name: "target-killed-after",
        done: "One of two targets is killed (SIGKILL) when the source has ended.",
        happens: "The next sweep finds its servers when its heartbeat has expired, with every increment that was stored.",
        setup: USUAL,
        inject: |scene| {
            scene.terminate(scene.source())?;
            scene.await_end(scene.source())?;
            scene.kill(scene.target())
        },
    },
    Fault {
        name: "target-hangs",
        done: "One of two targets stops answering (SIGSTOP) at a random point between a tenth and half of the drain, keeps its \
               connections, and continues 5 s later.",
        happens: "Attempts to move servers to it time out, and these servers are tried on the other target. The drain ends in \
                  its time.",
        setup: lasting(USUAL),
        inject: |scene| {
            let target = scene.target();
            scene.drain_until_moved(0.1, 0.5)?;
            scene.suspend(target, |scene| scene.let_pass(5_000, "the target does not answer"))
        },
    },
    Fault {
        name: "target-suspended",
        done: "One of two targets is suspended (SIGSTOP) right before the source is told to stop, keeps its connections, and \
               continues when the source has ended.",
        happens: "No server is stopped for it; all servers go to the other target.",
        setup: Setup { expected: &[Expected::SparesTarget], ..MOVES_ALL },
        inject: |scene| {
            let (source, target) = (scene.source(), scene.target());
            scene.suspend(target, |scene| {
                scene.terminate(source)?;
                scene.await_end(source)
            })
        },
    },
    Fault {
        name: "target-suspended-during",
        done: "One of two targets is suspended (SIGSTOP) at a random point between a tenth and half of the drain, keeps its \
               connections, and continues when the source has ended.",
        happens: "Servers that had stopped for it start on the other target after two seconds. A server whose start there had already \
                  begun is down until it continues, or until its heartbeats are too old; the drain does not wait for it.",
        setup: Setup { moves_percent: 75, ..lasting(MOVES_ALL) },
        inject: |scene| {
            let (source, target) = (scene.source(), scene.target());
            scene.drain_until_moved(0.1, 0.5)?;
            scene.suspend(target, |scene| scene.await_end(source))
        },
    },
    Fault {
        name: "target-told-during",
        done: "One of two targets is told to stop (SIGTERM) at a random point between a fifth and three fifths of the drain, \
               when it has received a part of the servers.",
        happens: "It gets no more servers, and moves its own to the other target.",
        setup: lasting(MOVES_ALL),
        inject: |scene| {
            scene.drain_until_moved(0.2, 0.6)?;
            scene.terminate(scene.target())
        },
    },
    Fault {
        name: "target-cut-off-from-the-store",
        done: "The store refuses every request of one of two targets, from a random point in the first half of the drain until the source \
               has ended, as when the credentials of one node expire.",
        happens: "Servers that cannot start there go to the other target; all servers move.",
        setup: lasting(MOVES_ALL),
        inject: cut_from_store,
    },
    Fault {
        name: "target-comes-back",
        done: "One of two targets is killed (SIGKILL) at a random point between a tenth and a half of a slow drain, and starts again at once \
               under the same name, as a pod of a StatefulSet does.",
        happens: "Servers that were moving to it are tried on the other target, or on it when it is back. Sweeps find those \
                  that it already had.",
        setup: Setup {
            slots: Some(4),
            latency_ms: 80,
            timeout_ms: 60_000,
            heartbeat_max_age_ms: 30_000,
            clients: 1,
            bound_s: 90,
            ..USUAL
        },
        inject: |scene| {
            let target = scene.target();
            scene.drain_until_moved(0.1, 0.5)?;
            scene.kill(target)?;
            scene.start_again(target)
        },
    },
];
