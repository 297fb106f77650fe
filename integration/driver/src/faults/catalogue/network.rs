//! Two nodes lose their connection. Both keep running and reach all others and the store.

use crate::faults::{Expected, Fault, MOVES_ALL, Setup, USUAL, lasting};

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "partition-during",
        done: "The connection between the source and one of two targets is dropped, and stays dropped, at a random point between a \
               tenth and nine tenths of the drain.",
        happens: "Attempts to move servers to that target fail at once. All servers go to the other target.",
        setup: lasting(MOVES_ALL),
        inject: |scene| {
            scene.drain_until_moved(0.1, 0.9)?;
            let (source, target) = (scene.source(), scene.target());
            scene.part(source, target)
        },
    },
    Fault {
        name: "partition-before",
        done: "The connection between the source and one of two targets is dropped before the drain, and stays dropped. The target's \
               heartbeats still reach the source through the store.",
        happens: "That target is not tried, because targets have to be connected. All servers go to the other one.",
        setup: Setup { expected: &[Expected::SparesTarget], bound_s: USUAL.bound_s, ..MOVES_ALL },
        inject: |scene| {
            let (source, target) = (scene.source(), scene.target());
            scene.part(source, target)?;
            scene.let_pass(1_000, "the source and a target are parted")?;
            scene.terminate(source)
        },
    },
];
