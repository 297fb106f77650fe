//! Several nodes that drain at the same moment.

use crate::faults::{Expected, Fault, MOVES_ALL, Setup, USUAL, WITH_RUST_NODE};

const TWO: Setup = Setup { nodes: 4, full: 2, bound_s: USUAL.bound_s, ..MOVES_ALL };

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "two-together",
        done: "Two of four nodes are told to stop at the same moment.",
        happens: "Neither moves servers to the other; all go to the two remaining nodes.",
        setup: TWO,
        inject: |scene| {
            for index in 0..2 {
                scene.terminate(scene.stage.apps[index])?;
            }
            Ok(())
        },
    },
    Fault {
        name: "three-together",
        done: "Three of four nodes are told to stop at the same moment, and the Rust node decides for all.",
        happens: "All servers go to the remaining node.",
        setup: Setup { nodes: 4, full: 3, expected: &[Expected::RustNodeDecides], ..WITH_RUST_NODE },
        inject: |scene| {
            for index in 0..3 {
                scene.terminate(scene.stage.apps[index])?;
            }
            Ok(())
        },
    },
];
