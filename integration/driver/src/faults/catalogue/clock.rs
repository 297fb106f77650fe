//! Wrong clocks, for everything on a node: DurableServer, the library, and Erlang itself (libfaketime).

use crate::faults::{Expected, Fault, MOVES_ALL, Setup, USUAL};
use crate::settings::ClockAhead;

const AHEAD_S: u32 = 10;

/// As in production, heartbeats are valid for longer than the error of the clock.
const USUAL_AGE: Setup = Setup { bound_s: USUAL.bound_s, ..MOVES_ALL };

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "clock-of-a-target-ahead",
        done: "The clock of one of two targets is 10 s ahead, so its heartbeats seem to come from the future.",
        happens: "Heartbeats from the future are ignored, so all servers go to the other target.",
        setup: Setup {
            clock_ahead: Some(ClockAhead { node: 2, seconds: AHEAD_S }),
            expected: &[Expected::SparesTarget],
            ..USUAL_AGE
        },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "clock-of-the-source-ahead",
        done: "The clock of the source is 10 s ahead, so the heartbeats of all other nodes look old to it.",
        happens: "Heartbeats that are 10 s old still count, so all servers are moved.",
        setup: Setup { clock_ahead: Some(ClockAhead { node: 0, seconds: AHEAD_S }), ..USUAL_AGE },
        inject: |scene| scene.terminate(scene.source()),
    },
];
