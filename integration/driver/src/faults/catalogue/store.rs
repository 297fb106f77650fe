//! Faults of the object store.

use crate::beam::commands::Command;
use crate::faults::{Fault, RESERVED_BOUND_S, Setup, USUAL};

/// The final write of a server may fail for good: then it is found as one of a node that was killed.
const FAILING: Setup = Setup { bound_s: RESERVED_BOUND_S, timeout_ms: 20_000, ..USUAL };

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "store-down",
        done: "The store answers nothing for 5 s, from a random point between a tenth and half of the drain on.",
        happens: "Attempts wait or time out; the drain goes on when the store answers again, or ends in its time.",
        setup: FAILING,
        inject: |scene| {
            let part = scene.random.between(0.1, 0.5);
            scene.terminate(scene.source())?;
            scene.await_moved(part)?;
            scene.to_store(Command::PauseStore)?;
            scene.let_pass(5_000, "the store is down")?;
            scene.to_store(Command::ResumeStore)
        },
    },
    Fault {
        name: "store-errors",
        done: "One in five requests to the store fails, during the whole drain and until the source has ended.",
        happens: "Attempts are repeated, or given up so that servers are stopped and found as without a drain.",
        setup: FAILING,
        inject: |scene| {
            scene.store(Some((5, 0.2)))?;
            scene.terminate(scene.source())?;
            scene.await_end(scene.source())?;
            scene.store(None)
        },
    },
    Fault {
        name: "store-spikes",
        done: "Three times during the drain every request to the store takes 2 s.",
        happens: "The drain slows down, and nothing is lost.",
        setup: FAILING,
        inject: |scene| {
            scene.terminate(scene.source())?;
            for part in [0.1, 0.4, 0.7] {
                scene.await_moved(part)?;
                scene.store(Some((2_000, 0.0)))?;
                scene.let_pass(300, "the store is slow")?;
                scene.store(None)?;
            }
            Ok(())
        },
    },
];
