//! One mode, from an empty machine to its figures.

pub mod deploy;
pub mod recovery;
pub mod stage;

use std::path::Path;

use crate::beam::Cluster;
use crate::beam::commands::{Command, read_calls, read_counts};
use crate::beam::node_config::Role;
use crate::interrupt::Interrupt;
use crate::metrics::{Observed, figures};
use crate::progress::ModeProgress;
use crate::report::{ModeReport, Versions};
use crate::settings::{Mode, Settings};
use crate::{Error, Result};

/// Runs one mode on fresh nodes and a fresh store.
pub fn run_mode(
    mode: Mode,
    settings: &Settings,
    logs: &Path,
    interrupt: &Interrupt,
    progress: &ModeProgress,
) -> Result<(ModeReport, Versions)> {
    let mut cluster = Cluster::new(mode, settings, logs, interrupt)?;
    let stage = stage::set(&mut cluster, settings, progress)?;

    let mut notes = Vec::new();
    let drains = deploy::run(&mut cluster, &stage, settings, progress, &mut notes)?;
    let all_back = recovery::wait(&mut cluster, &stage, settings, progress, &mut notes)?;

    progress.step("reading the counters");
    let calls = read_calls(&cluster.call(stage.client, Command::StopClients)?)?;
    let store_ops = read_counts(&cluster.call(stage.store, Command::StoreStats)?)?;
    let counters = recovery::counters(&mut cluster, &stage, settings)?;
    let everyone: Vec<_> = cluster.alive().filter(|&id| cluster.node(id).config.role != Role::Store).collect();
    cluster.call_each(everyone.into_iter().map(|id| (id, Command::Flush)).collect(), |_| {})?;

    let versions =
        cluster.node(stage.client).versions.clone().ok_or_else(|| Error::protocol("a client without versions"))?;
    let observed = Observed {
        nodes: cluster.nodes().iter().map(Into::into).collect(),
        records: cluster.records(),
        drains: &drains,
        calls: &calls,
        counters: &counters,
        servers: settings.servers,
        all_back,
    };
    Ok((ModeReport { store_ops, notes, ..figures(&observed) }, versions.into()))
}
