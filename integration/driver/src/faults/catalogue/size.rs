//! Large clusters and large states.

use crate::beam::commands::Command;
use crate::faults::{Fault, MOVES_ALL, Setup};

// Heartbeats wait behind other requests here. They are not the subject of the test, so they may be old.
const LARGE: Setup = Setup { bound_s: 90, ..MOVES_ALL };

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "many-servers",
        done: "A node with 5,000 servers is told to stop.",
        happens: "All are moved in one drain.",
        setup: Setup { servers: 5_000, latency_ms: 1, ..LARGE },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "large-states",
        done: "A node whose 200 servers have states of 512 KB each, 100 MB in all, is told to stop.",
        happens: "All are moved in one drain.",
        setup: Setup { servers: 200, state_bytes: Some(512 * 1_024), clients: 1, ..LARGE },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "one-large-state",
        done: "A node with 120 servers, of which one has a state of 50 MB that is not in storage, is told to stop.",
        happens: "All are moved in one drain.",
        setup: Setup { clients: 1, ..LARGE },
        inject: |scene| {
            // One of the servers that do not store each increment.
            scene.cluster.call(scene.stage.client, Command::Grow { key: 1, bytes: 50 << 20 })?;
            scene.terminate(scene.source())
        },
    },
];
