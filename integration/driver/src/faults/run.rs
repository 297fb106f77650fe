//! One run of one fault: a fresh cluster, clients, the fault, the checks.

use clap::Parser;

use super::checks::{Found, after, before};
use super::scene::Scene;
use super::{Fault, Setup};
use crate::Result;
use crate::args::Args;
use crate::beam::Cluster;
use crate::interrupt::Interrupt;
use crate::paths::Paths;
use crate::progress::ModeProgress;
use crate::releases::Releases;
use crate::run::stage;
use crate::settings::Settings;
use crate::store::Store;
use crate::variant::{Client, Mode, Variant};

#[derive(Debug)]
pub struct Run<'a> {
    pub client: Client,
    pub releases: Releases,
    pub seed: u64,
    pub paths: &'a Paths,
    pub interrupt: &'a Interrupt,
    pub progress: &'a ModeProgress,
}

impl Run<'_> {
    pub fn run(&self, fault: &Fault) -> Result<Found> {
        let without = if fault.setup.compared { self.stored_without(fault)? } else { None };
        let variant = Variant { executor: fault.setup.executor, client: self.client, ..Mode::Handoff.into() };
        let settings = settings(&fault.setup, variant, self.releases.clone());
        let mut scene = self.scene(fault, variant, &settings)?;
        let before = before(&mut scene.cluster)?;
        (fault.inject)(&mut scene)?;
        let mut found = after(&mut scene, &before)?;
        if let (Some(with), Some(without)) = (scene.stored, without) {
            found.compare(with, without);
        }
        Ok(found)
    }

    /// Repeats the fault at the same moments in a cluster without `durable_handoff`. Returns how many states
    /// are in storage then.
    fn stored_without(&self, fault: &Fault) -> Result<Option<u32>> {
        let settings = settings(&fault.setup, Mode::Graceful.into(), self.releases.clone());
        let mut scene = self.scene(fault, Mode::Graceful.into(), &settings)?;
        (fault.inject)(&mut scene)?;
        Ok(scene.stored)
    }

    fn scene<'a>(&'a self, fault: &Fault, variant: Variant, settings: &'a Settings) -> Result<Scene<'a>> {
        let mut cluster = Cluster::new(variant, settings, self.paths, self.interrupt)?;
        let stage = stage::set(&mut cluster, settings, self.progress)?;
        Ok(Scene::new(fault.setup, cluster, stage, settings, self.seed, self.progress))
    }
}

/// Shorter times than in production, so that a fault takes seconds: discovery 2 s (60), heartbeats 0.5 s (10)
/// that count for 8 s (30). The rest as `integration/demo` has it.
fn settings(setup: &Setup, variant: Variant, releases: Releases) -> Settings {
    let demo = Args::parse_from(["integration/demo", "--scenario", "together"]);
    let store = Store::Simulated { latency_ms: setup.latency_ms, slots: setup.slots, error_rate: 0.0 };
    Settings {
        releases,
        nodes: setup.nodes,
        draining: Some(setup.full),
        servers: setup.servers,
        clients: setup.clients,
        modes: vec![variant],
        max_concurrency: setup.max_concurrency,
        timeout_ms: setup.timeout_ms,
        attempt_timeout_ms: 3_000,
        state_bytes: setup.state_bytes,
        synced: setup.synced,
        sync_one_in: 10,
        heartbeat_max_age_ms: Some(setup.heartbeat_max_age_ms),
        slow_child_ms: setup.slow_child_ms,
        clock_ahead: setup.clock_ahead,
        lacks_module: setup.lacks_module,
        partitions: true,
        call_every_ms: 20,
        discovery_interval_ms: setup.discovery_interval_ms,
        heartbeat_interval_ms: 500,
        warm_up_ms: 500,
        recovery_bound_s: setup.bound_s,
        ..demo.settings_on(store)
    }
}
