//! Faults of the object store.

use crate::Result;
use crate::beam::commands::{Command, Outage};
use crate::faults::scene::Scene;
use crate::faults::{Fault, RESERVED_BOUND_S, Setup, USUAL, lasting};
use crate::kept::FinalWrites;

/// A server that was stopped during the outage may have to wait until its reservation expires.
const FAILING: Setup = Setup { bound_s: RESERVED_BOUND_S, timeout_ms: 20_000, ..USUAL };

/// DurableServer stops a server even when its final write fails. So servers that are stopping when the outage
/// begins lose the changes after their last sync.
const OUT: Setup = Setup { final_writes: FinalWrites::FailAsReported, ..lasting(FAILING) };

/// Heartbeats fail too, and a node that cannot send any for as long as they count stops its servers. A server
/// that was stopped during the outage is found once the heartbeats of its node have expired.
const OUT_LONG: Setup = Setup { heartbeat_max_age_ms: 20_000, bound_s: 90, ..OUT };

/// The store refuses requests from a random moment of the drain.
fn out(scene: &mut Scene, outage: Outage, milliseconds: u64) -> Result<()> {
    scene.drain_until_moved(0.1, 0.9)?;
    scene.store_out(outage, milliseconds)
}

const AFTER_OUTAGE: &str = "The drain stops no server until it knows that the server's state can be stored, and continues when \
                            the store works again. If the outage begins just before the final write of a server, that server \
                            starts again from its last sync, and the report counts it as `state_not_stored`.";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "store-down",
        done: "The store does not answer for 5 s, from a random point between a tenth and half of the drain on.",
        happens: "Attempts wait or time out. The drain continues when the store answers again, or ends in its time.",
        setup: lasting(FAILING),
        inject: |scene| {
            scene.drain_until_moved(0.1, 0.5)?;
            scene.to_store(Command::PauseStore)?;
            scene.let_pass(5_000, "the store is down")?;
            scene.to_store(Command::ResumeStore)
        },
    },
    Fault {
        name: "store-errors",
        done: "One in five requests to the store fails, during the whole drain and until the source has ended.",
        happens: "Attempts are repeated. Servers whose attempts all fail are stopped and found as without a drain. The final \
                  write of a stopped server may fail. Then the changes since its last sync are lost, as without a drain.",
        setup: Setup { final_writes: FinalWrites::MayFail, ..FAILING },
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
        setup: lasting(FAILING),
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
    Fault {
        name: "store-out-500ms",
        done: "The store refuses every request for half a second, from a random point of the drain on.",
        happens: AFTER_OUTAGE,
        setup: OUT,
        inject: |scene| out(scene, Outage::All, 500),
    },
    Fault {
        name: "store-out-2s",
        done: "The store refuses every request for 2 s, from a random point of the drain on.",
        happens: AFTER_OUTAGE,
        setup: OUT,
        inject: |scene| out(scene, Outage::All, 2000),
    },
    Fault {
        name: "store-out-10s",
        done: "The store refuses every request for 10 s, from a random point of the drain on.",
        happens: AFTER_OUTAGE,
        setup: OUT_LONG,
        inject: |scene| out(scene, Outage::All, 10000),
    },
    Fault {
        name: "store-writes-out-500ms",
        done: "The store refuses writes, and serves reads, for half a second, from a random point of the drain on.",
        happens: AFTER_OUTAGE,
        setup: OUT,
        inject: |scene| out(scene, Outage::Writes, 500),
    },
    Fault {
        name: "store-writes-out-2s",
        done: "The store refuses writes, and serves reads, for 2 s, from a random point of the drain on.",
        happens: AFTER_OUTAGE,
        setup: OUT,
        inject: |scene| out(scene, Outage::Writes, 2000),
    },
    Fault {
        name: "store-writes-out-10s",
        done: "The store refuses writes, and serves reads, for 10 s, from a random point of the drain on.",
        happens: AFTER_OUTAGE,
        setup: OUT_LONG,
        inject: |scene| out(scene, Outage::Writes, 10000),
    },
];
