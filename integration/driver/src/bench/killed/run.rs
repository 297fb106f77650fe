//! The measurement.

use std::time::Duration;

use clap::Parser;

use super::args::{Args, store};
use super::table::{AtKill, Report, Row};
use crate::args;
use crate::beam::Cluster;
use crate::interrupt::Interrupt;
use crate::paths::Paths;
use crate::progress::{ModeProgress, Progress};
use crate::report::Versions;
use crate::run::{stage, unsynced};
use crate::settings::Settings;
use crate::variant::{Mode, Variant};
use crate::{Error, Result};

/// How late a kill may be. The driver does not wait for nodes in between.
const LATE: Duration = Duration::from_secs(30);

pub fn run(args: &Args, paths: &Paths, interrupt: &Interrupt, progress: &Progress) -> Result<Report> {
    let (mut rows, mut versions) = (Vec::new(), None);
    for name in &args.only {
        for &after_s in &args.after {
            let mut measure = |mode: Mode| {
                let executor = args.executor;
                let variant = if mode == Mode::Handoff { Variant { executor, ..mode.into() } } else { mode.into() };
                let line = progress.line(format!("{name}, killed after {after_s} s, {variant}"));
                // The run has a folder of its own in the store, as every column of the demo does.
                let paths =
                    Paths::new(paths.logs.clone(), paths.scratch.join(format!("{name}-{after_s}").replace('/', "_")))?;
                let (at_kill, on) = at_kill(args, name, after_s, variant, &paths, interrupt, &line)?;
                line.done(&format!("{} of {} stored", at_kill.stored, args.servers));
                versions.get_or_insert(on);
                Ok::<_, Error>(at_kill)
            };
            let (without, with) = (measure(Mode::Graceful)?, measure(Mode::Handoff)?);
            rows.push(Row { store: name.clone(), after_s, without, with });
        }
    }
    let versions = versions.ok_or_else(|| Error::protocol("nothing was measured"))?;
    Ok(Report { bench: "killed", versions, servers: args.servers, slow_child_ms: args.slow_child_ms, rows })
}

fn at_kill(
    args: &Args,
    name: &str,
    after_s: u32,
    variant: Variant,
    paths: &Paths,
    interrupt: &Interrupt,
    progress: &ModeProgress,
) -> Result<(AtKill, Versions)> {
    let settings = settings(args, name, variant);
    let servers = settings.servers;
    let mut cluster = Cluster::new(variant, &settings, paths, interrupt)?;
    let (stage, _) = stage::servers(&mut cluster, &settings, progress)?;
    unsynced::increment_all(&mut cluster, &stage, servers)?;

    progress.step("stopping the node");
    let (source, started_before) = (stage.apps[0], cluster.heard.started);
    let sigterm_us = cluster.node_mut(source).sigterm()?;
    let until = std::time::Instant::now() + Duration::from_secs(after_s.into());
    let time = Duration::from_secs(after_s.into()) + LATE;
    let ended = cluster.wait("the node stopping", time, |cluster| {
        let ended = cluster.node_mut(source).has_ended()?;
        Ok((ended || std::time::Instant::now() >= until).then_some(ended))
    })?;
    cluster.node_mut(source).kill()?;
    progress.step("counting what is stored");
    let started = cluster.heard.started - started_before;
    let stored = unsynced::stored(&mut cluster, &stage, servers)?;
    let gone_us = cluster.node(source).gone_us.filter(|_| ended);
    let stopped_after_ms = gone_us.map(|gone_us| gone_us.saturating_sub(sigterm_us) / 1_000);
    let versions =
        cluster.node(stage.client).versions.clone().ok_or_else(|| Error::protocol("a client without versions"))?;
    Ok((AtKill { stored, started, stopped_after_ms }, versions.into()))
}

/// The settings of production: sweeps every 60 s, usual heartbeats, the usual time limit of a drain.
fn settings(args: &Args, name: &str, variant: Variant) -> Settings {
    let demo = args::Args::parse_from(["integration/demo", "--scenario", "drain", "--nodes", "3"]);
    let settings = demo.settings_on(store(name));
    let Args { servers, slow_child_ms, .. } = *args;
    // Heartbeats are sent every second, so that the nodes know each other soon after they have booted.
    Settings { servers, slow_child_ms, modes: vec![variant], heartbeat_interval_ms: 1_000, ..settings }
}
