//! Faults of the draining node.

use crate::faults::{Fault, RESERVED_BOUND_S, Setup, USUAL, lasting};
use crate::settings::Synced;

/// A drain that takes longer than five seconds.
const SLOW: Setup = Setup { slots: Some(2), latency_ms: 40, bound_s: RESERVED_BOUND_S, clients: 1, ..USUAL };

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "source-killed",
        done: "The source is killed (SIGKILL) at a random point between a tenth and nine tenths of its drain.",
        happens: "Moved servers continue to run. A sweep finds the others when the source's heartbeat has expired, and those \
                  that were stopped but not yet started when their reservation has expired, too, at most 40 s later.",
        setup: Setup { bound_s: RESERVED_BOUND_S, ..lasting(USUAL) },
        inject: |scene| {
            scene.drain_until_moved(0.1, 0.9)?;
            scene.kill(scene.source())
        },
    },
    Fault {
        name: "source-terminated-then-killed",
        done: "The source is told to stop (SIGTERM) and killed 5 s later, in the middle of a slow drain, as an orchestrator \
               with a short grace period does. From then on the store is fast.",
        happens: "Moved servers continue to run, and sweeps find the rest, as after a kill without SIGTERM.",
        setup: SLOW,
        inject: |scene| {
            scene.terminate(scene.source())?;
            scene.let_pass(5_000, "the source is draining")?;
            scene.kill(scene.source())?;
            // With these short intervals, sweeps that keep the store busy would delay heartbeats so much that
            // nodes would stop.
            scene.quick_store()
        },
    },
    Fault {
        name: "killed-early",
        done: "The source has 1,000 servers with increments that are not in storage, on a store that takes 200 writes a second. It is told \
               to stop, and killed 1.5 to 4 s later. The same is done to a cluster without durable_handoff. No client calls.",
        happens: "When the node is killed, at least as many states are in storage as without durable_handoff.",
        setup: Setup {
            servers: 1_000,
            slots: Some(8),
            latency_ms: 40,
            timeout_ms: 30_000,
            synced: Synced::None,
            compared: true,
            clients: 0,
            bound_s: 90,
            ..USUAL
        },
        inject: |scene| {
            let after_ms = scene.random.between(1_500, 4_000);
            scene.increment_all()?;
            scene.terminate(scene.source())?;
            scene.let_pass(after_ms, "the source is stopping")?;
            scene.kill(scene.source())?;
            scene.count_stored()?;
            scene.quick_store()
        },
    },
    Fault {
        name: "deadline-passed",
        done: "The source's drain is given one second, in which few of its servers can be moved. Nodes look for lost servers every ten minutes \
               only.",
        happens: "The drain ends in its time. Servers that it could not move are stopped as without a drain, and start on \
                  other nodes as soon as their state is stored.",
        setup: Setup {
            timeout_ms: 1_000,
            slots: Some(4),
            latency_ms: 40,
            discovery_interval_ms: 600_000,
            // DurableServer restarts itself when no heartbeat was written for three quarters of this time.
            // Here heartbeats wait behind the starts of leftovers, for longer than the usual value allows.
            heartbeat_max_age_ms: 30_000,
            clients: 1,
            ..USUAL
        },
        inject: |scene| scene.terminate(scene.source()),
    },
    Fault {
        name: "source-suspended",
        done: "The source is suspended (SIGSTOP) for 5 s at a random point between a tenth and nine tenths of its drain, as when its \
               virtual machine moves.",
        happens: "Moved servers continue to run. The drain continues with the source: it finds out what became of attempts \
                  that took too long, and no server starts twice.",
        setup: Setup { bound_s: RESERVED_BOUND_S, ..lasting(USUAL) },
        inject: |scene| {
            let source = scene.source();
            scene.drain_until_moved(0.1, 0.9)?;
            scene.suspend(source, |scene| scene.let_pass(5_000, "the source is suspended"))
        },
    },
    Fault {
        name: "told-again",
        done: "The source is told to stop again (SIGTERM) at two random points of its drain, as an impatient operator does.",
        happens: "All servers move, as after a single SIGTERM.",
        setup: Setup { moves_percent: 100, ..lasting(USUAL) },
        inject: |scene| {
            let (first, second) = (scene.random.within(0.0, 0.4), scene.random.within(0.4, 0.9));
            let source = scene.source();
            scene.terminate(source)?;
            for part in [first, second] {
                scene.await_moved(part)?;
                if !scene.cluster.node_mut(source).has_ended()? {
                    scene.terminate(source)?;
                }
            }
            Ok(())
        },
    },
    Fault {
        name: "drain-during-drain",
        done: "An operator starts a drain. A second request joins it when a tenth of the servers has moved, and SIGTERM comes \
               at a random point after that.",
        happens: "There is only one drain. The shutdown waits for it, within its own time limit.",
        setup: lasting(USUAL),
        inject: |scene| {
            let part = scene.random.within(0.2, 0.8);
            let source = scene.source();
            scene.cluster.call(source, crate::beam::commands::Command::Drain)?;
            scene.await_moved(0.1)?;
            scene.cluster.call(source, crate::beam::commands::Command::Drain)?;
            scene.await_moved(part)?;
            scene.terminate(source)
        },
    },
];
