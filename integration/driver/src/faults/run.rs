//! One run of one fault: a fresh cluster, clients, the fault, the checks.

use super::checks::{Found, after, before};
use super::scene::Scene;
use super::{Fault, Setup};
use crate::Result;
use crate::beam::Cluster;
use crate::interrupt::Interrupt;
use crate::paths::Paths;
use crate::progress::ModeProgress;
use crate::releases::Releases;
use crate::run::stage;
use crate::settings::{Concurrency, Scenario, Settings, Synced};
use crate::store::Store;
use crate::variant::{Client, Mode, Variant};

/// Runs a fault.
pub fn run(
    fault: &Fault,
    client: Client,
    releases: Releases,
    seed: u64,
    paths: &Paths,
    interrupt: &Interrupt,
    progress: &ModeProgress,
) -> Result<Found> {
    let variant = Variant { executor: fault.setup.executor, client, ..Mode::Handoff.into() };
    let settings = settings(&fault.setup, variant, releases);
    let mut cluster = Cluster::new(variant, &settings, paths, interrupt)?;
    let stage = stage::set(&mut cluster, &settings, progress)?;
    let there = before(&mut cluster)?;
    let mut scene = Scene::new(fault, cluster, stage, &settings, seed, progress);
    (fault.inject)(&mut scene)?;
    after(&mut scene, &there)
}

/// Shorter times than in production, so that a fault takes seconds: discovery 2 s (60), heartbeats 0.5 s (10) that count for 8 s (30).
fn settings(setup: &Setup, variant: Variant, releases: Releases) -> Settings {
    Settings {
        releases,
        scenario: Scenario::Together,
        deploy: None,
        nodes: setup.nodes,
        draining: Some(setup.full),
        servers: setup.servers,
        clients: setup.clients,
        modes: vec![variant],
        kill_node_at: None,
        max_concurrency: 50,
        concurrency: Concurrency::Adaptive,
        timeout_ms: setup.timeout_ms,
        attempt_timeout_ms: 3_000,
        store: Store::Simulated { latency_ms: setup.latency_ms, slots: setup.slots, error_rate: 0.0 },
        state_bytes: setup.state_bytes,
        start_ms: 0,
        synced: Synced::Half,
        sync_one_in: 10,
        heartbeat_max_age_ms: Some(setup.heartbeat_max_age_ms),
        slow_child_ms: setup.slow_child_ms,
        clock_ahead: setup.clock_ahead,
        lacks_module: setup.lacks_module,
        partitions: true,
        call_every_ms: 20,
        quick: false,
        discovery_interval_ms: setup.discovery_interval_ms,
        heartbeat_interval_ms: 500,
        warm_up_ms: 500,
        recovery_bound_s: setup.bound_s,
    }
}
