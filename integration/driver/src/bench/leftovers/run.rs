//! The measurement.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use etf::read_u32;

use super::args::{Args, Side};
use super::table::{Left, Report};
use crate::args;
use crate::beam::Cluster;
use crate::beam::commands::{Command, Outage, read_counts, read_keys};
use crate::beam::link::now_us;
use crate::history::{Drain, Key, Moment, Move, NodeId, Record, lives, moves};
use crate::interrupt::Interrupt;
use crate::paths::Paths;
use crate::progress::{ModeProgress, Progress};
use crate::report::Versions;
use crate::run::recovery;
use crate::run::stage::{self, Stage};
use crate::settings::{Settings, Synced};
use crate::store::Store;
use crate::variant::Mode;
use crate::{Error, Result};

/// The time limit for a node to end after its signal, and for a receiver to start some of the leftovers.
const END_BOUND: Duration = Duration::from_secs(180);

/// Two sweeps, a lock that must expire first, and the time of the store's requests.
const BACK_WITHIN_S: u32 = 400;

pub fn run(args: &Args, paths: &Paths, interrupt: &Interrupt, progress: &Progress) -> Result<Report> {
    let mut versions = None;
    let mut measure = |side, name: &str| {
        if args.only.is_some_and(|only| only != side) {
            return Ok(None);
        }
        let line = progress.line(name.to_owned());
        let (left, on) = one(args, side, paths, interrupt, &line)?;
        line.done(&format!("{} left", left.left));
        versions.get_or_insert(on);
        Ok::<_, Error>(Some(left))
    };
    let (with, without) = (measure(Side::With, "start_leftovers")?, measure(Side::Without, "without")?);
    let versions = versions.ok_or_else(|| Error::protocol("nothing was measured"))?;
    Ok(Report::new(args, versions, with, without))
}

fn one(
    args: &Args,
    side: Side,
    paths: &Paths,
    interrupt: &Interrupt,
    progress: &ModeProgress,
) -> Result<(Left, Versions)> {
    let settings = settings(args, side);
    let mut cluster = Cluster::new(Mode::Handoff.into(), &settings, paths, interrupt)?;
    let (stage, sweeps_from) = stage::servers(&mut cluster, &settings, progress)?;
    let store = stage.store.ok_or_else(|| Error::protocol("no node plays the store"))?;
    let unstored = cluster.call(stage.client, Command::IncrementAll { servers: args.servers })?;
    if read_u32(&unstored, "unstored")? > 0 {
        return Err(Error::protocol("a server answered before it had stored its increment"));
    }
    configure(&mut cluster, store, Some(args))?;

    let next_sweep = sweeps_from + Duration::from_millis(settings.discovery_interval_ms.into());
    let next_sweep_ms = next_sweep.saturating_duration_since(Instant::now()).as_millis();
    let mut ended = vec![stop(&mut cluster, &stage, args, progress)?];
    if args.kill_target {
        ended.push(kill_target(&mut cluster, &stage, args.servers, progress)?);
    }
    let mut notes = Vec::new();
    recovery::wait(&mut cluster, &stage, &settings, progress, &mut notes)?;
    let stats = read_counts(&cluster.call(store, Command::StoreStats)?)?;
    configure(&mut cluster, store, None)?;
    let wrong = wrong(&mut cluster, &stage, &settings)?;

    let gaps = gaps(&cluster, &ended)?;
    let max_in_flight = stats.get("max_in_flight").copied().unwrap_or(0);
    let versions =
        cluster.node(stage.client).versions.clone().ok_or_else(|| Error::protocol("a client without versions"))?;
    Ok((Left::new(gaps, u64::try_from(next_sweep_ms).unwrap_or(u64::MAX), max_in_flight, wrong), versions.into()))
}

/// Sets the latency of the store during the moves; without `args` that before and after.
fn configure(cluster: &mut Cluster, store: NodeId, args: Option<&Args>) -> Result<()> {
    let latency_ms = args.map_or(0, |args| args.latency_ms);
    let error_rate = args.map_or(0.0, |args| f64::from(args.fail) / 100.0);
    let slots = args.map(|args| args.slots);
    cluster.call(store, Command::ConfigureStore { latency_ms, slots, error_rate, outage: Outage::None })?;
    Ok(())
}

/// Shuts the source down, or drains it and then kills it.
fn stop(cluster: &mut Cluster, stage: &Stage, args: &Args, progress: &ModeProgress) -> Result<Drain> {
    let source = stage.apps[0];
    progress.step("draining the node");
    if args.kill_source {
        cluster.call(source, Command::Drain)?;
        cluster.wait("the drain ending", END_BOUND + Duration::from_millis(args.timeout_ms.into()), |cluster| {
            Ok((!cluster.heard.drained.is_empty()).then_some(()))
        })?;
        return end(cluster, source, true);
    }
    end(cluster, source, false)
}

/// Kills a receiver when it has started some of the servers.
fn kill_target(cluster: &mut Cluster, stage: &Stage, servers: u32, progress: &ModeProgress) -> Result<Drain> {
    progress.step("killing a receiver");
    let target = stage.apps[1];
    let started = |record: &&Record| record.node == target && record.moment == Moment::Init;
    cluster.wait("a receiver starting some servers", END_BOUND, |cluster| {
        Ok((cluster.heard.records.iter().filter(started).count() > servers as usize / 20).then_some(()))
    })?;
    end(cluster, target, true)
}

fn end(cluster: &mut Cluster, node: NodeId, killed: bool) -> Result<Drain> {
    let sigterm_us = now_us();
    if killed {
        cluster.node_mut(node).kill()?
    } else {
        cluster.node_mut(node).sigterm().map(drop)?
    };
    cluster.wait("a node ending", END_BOUND, |cluster| Ok(cluster.node_mut(node).has_ended()?.then_some(())))?;
    // Servers that have not ended before end with the kill of their node.
    let gone_us = cluster.node(node).gone_us.filter(|_| !killed).unwrap_or(sigterm_us);
    Ok(Drain { node, sigterm_us, gone_us })
}

/// The down times of the servers that the drain of the first node left.
fn gaps(cluster: &Cluster, ended: &[Drain]) -> Result<Vec<u64>> {
    let [Drain { node: source, .. }, ..] = ended else { return Ok(Vec::new()) };
    let drain = cluster.heard.drained.iter().find(|end| end.node == *source);
    let drained_us =
        drain.ok_or_else(|| Error::protocol("the node did not say when its drain had ended"))?.report.at_us;
    let lives = lives(&cluster.heard.records, ended);
    let left = |step: &&Move| step.from == *source && step.to != *source && step.stopped_us >= drained_us;
    Ok(moves(&lives).iter().filter(left).map(Move::gap_us).collect())
}

/// The number of servers without exactly one owner that has the stored counter.
fn wrong(cluster: &mut Cluster, stage: &Stage, settings: &Settings) -> Result<usize> {
    let apps: Vec<_> = stage.apps.iter().filter(|&&id| cluster.node(id).is_connected()).copied().collect();
    let mut running: BTreeMap<Key, usize> = BTreeMap::new();
    for answer in cluster.call_each(apps.iter().map(|&id| (id, Command::Running)).collect(), |_| {})? {
        for key in read_keys(&answer)? {
            *running.entry(key).or_default() += 1;
        }
    }
    let counters = recovery::counters(cluster, stage, settings)?;
    let right = counters.iter().filter(|counter| {
        counter.node.is_some() && counter.intact && counter.value == 1 && running.get(&counter.key) == Some(&1)
    });
    Ok(settings.servers as usize - right.count())
}

/// The settings of production, with sweeps every 60 s. The store becomes slow once every server has stored
/// its state.
fn settings(args: &Args, side: Side) -> Settings {
    let demo = args::Args::parse_from(["integration/demo", "--scenario", "drain"]);
    let settings = demo.settings_on(Store::Simulated { latency_ms: 0, slots: None, error_rate: 0.0 });
    Settings {
        nodes: args.receivers + 1,
        servers: args.servers,
        modes: vec![Mode::Handoff.into()],
        timeout_ms: args.timeout_ms,
        start_leftovers: side == Side::With,
        synced: Synced::All,
        state_bytes: Some(1),
        // The nodes must know each other soon.
        heartbeat_interval_ms: 1_000,
        recovery_bound_s: BACK_WITHIN_S,
        ..settings
    }
}
