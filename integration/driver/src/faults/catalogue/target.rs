//! Faults of a node that servers move to.

use crate::faults::{Fault, USUAL};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "target-killed-before",
        done: "One of two targets is killed (SIGKILL) right before the source is told to stop; its heartbeat still looks fresh.",
        happens: "Attempts towards it fail at once or are never made; everything goes to the other target.",
        setup: USUAL,
        inject: |scene| {
            scene.kill(scene.target())?;
            scene.terminate(scene.source())
        },
    },
    Fault {
        name: "target-killed-during",
        done: "One of two targets is killed (SIGKILL) at a random point between a fifth and four fifths of the drain.",
        happens: "Servers in flight towards it are tried on the other target. What had moved there already is found by the next \
                  sweep once its heartbeat has run out.",
        setup: USUAL,
        inject: |scene| {
            let part = scene.random.within(0.2, 0.8);
            scene.terminate(scene.source())?;
            scene.await_moved(part)?;
            scene.kill(scene.target())
        },
    },
    Fault {
        name: "target-killed-after",
        done: "One of two targets is killed (SIGKILL) when the source has ended.",
        happens: "Its servers are found by the next sweep once its heartbeat has run out, with every increment that was stored.",
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
               connections, and goes on 5 s later.",
        happens: "Attempts towards it time out and are tried on the other target; the drain ends in its time.",
        setup: USUAL,
        inject: |scene| {
            let part = scene.random.within(0.1, 0.5);
            let target = scene.target();
            scene.terminate(scene.source())?;
            scene.await_moved(part)?;
            scene.cluster.node_mut(target).pause()?;
            scene.let_pass(5_000, "the target does not answer")?;
            scene.cluster.node_mut(target).resume()
        },
    },
];
