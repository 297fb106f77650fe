//! One mode, from starting its nodes to its figures.

pub mod balance;
pub mod cpu;
pub mod deploy;
pub mod recovery;
pub mod stage;
pub mod unsynced;

use std::collections::BTreeMap;

use crate::beam::commands::{Command, read_calls, read_counts};
use crate::beam::link::now_us;
use crate::beam::node_config::Role;
use crate::beam::{Cluster, DrainEnd};
use crate::history::NodeId;
use crate::interrupt::Interrupt;
use crate::kept::FinalWrites;
use crate::metrics::{Observed, figures};
use crate::paths::Paths;
use crate::progress::ModeProgress;
use crate::quantiles::Quantiles;
use crate::report::nodes::not_mixed;
use crate::report::{Load, ModeReport, Versions};
use crate::settings::Settings;
use crate::variant::{Mode, Variant};
use crate::{Error, Result};

/// Measures one column on fresh nodes and a fresh store.
pub fn run_mode(
    variant: Variant,
    settings: &Settings,
    paths: &Paths,
    interrupt: &Interrupt,
    progress: &ModeProgress,
) -> Result<(ModeReport, Versions)> {
    let mut cluster = Cluster::new(variant, settings, paths, interrupt)?;
    let stage = stage::set(&mut cluster, settings, progress)?;

    let mut notes = Vec::new();
    let mut before = cpu::measure_from_here(&mut cluster, &stage)?;
    let began_us = now_us();
    let drains = deploy::run(&mut cluster, &stage, settings, progress, &mut notes, &mut before)?;
    if settings.rebalance && variant.mode == Mode::Handoff {
        balance::wait(&mut cluster, &drains, progress, &mut notes)?;
    }
    let measured = if settings.second_drain { drains.len().saturating_sub(1) } else { 0 };
    let cpu_ms = cpu::since(&before, &mut cluster, &stage, drains.get(measured..).unwrap_or_default());
    let store_load = store_stats(&mut cluster, stage.store)?.as_ref().map(Load::of);
    let all_back = recovery::wait(&mut cluster, &stage, settings, progress, &mut notes)?;
    // As long as before the first drain, so that calls outside of drains are measured before and after.
    progress.step("clients going on");
    cluster.listen_for(settings.warm_up(), "clients going on")?;

    progress.step("reading the counters");
    let calls = read_calls(&cluster.call(stage.client, Command::StopClients)?)?;
    let store_ops = store_stats(&mut cluster, stage.store)?;
    let counters = recovery::counters(&mut cluster, &stage, settings)?;
    let nodes: Vec<_> = cluster.alive().filter(|&id| cluster.node(id).config.role != Role::Store).collect();
    cluster.call_each(nodes.into_iter().map(|id| (id, Command::Flush)).collect(), |_| {})?;

    let versions =
        cluster.node(stage.client).versions.clone().ok_or_else(|| Error::protocol("a client without versions"))?;
    let observed = Observed {
        nodes: cluster.nodes().iter().map(Into::into).collect(),
        records: &cluster.heard.records,
        began_us,
        drains: &drains,
        calls: &calls,
        counters: &counters,
        servers: settings.servers,
        all_back,
        final_writes: FinalWrites::Count,
    };
    notes.extend(
        cluster.heard.fallbacks.iter().map(|(id, reason)| format!("{}: {reason}", cluster.node(*id).config.label)),
    );
    let waited_ms = Quantiles::of_micros(cluster.heard.waited_us.clone());
    let decided_by = decided_by(&cluster, &mut notes);
    let figures = figures(&observed);
    if let Some(reason) = not_mixed(&settings.releases, &figures.nodes) {
        return Err(Error::NotMixed { reason });
    }
    Ok((ModeReport { cpu_ms, store_ops, store_load, decided_by, waited_ms, notes, ..figures }, versions.into()))
}

fn store_stats(cluster: &mut Cluster, store: Option<NodeId>) -> Result<Option<BTreeMap<String, u64>>> {
    store.map(|id| read_counts(&cluster.call(id, Command::StoreStats)?)).transpose()
}

/// Drains by executor, from their own reports. Adds a note if the executor was not the column's.
fn decided_by(cluster: &Cluster, notes: &mut Vec<String>) -> BTreeMap<String, usize> {
    let variant = cluster.variant();
    let mut decided: BTreeMap<String, usize> = BTreeMap::new();
    for DrainEnd { node, report, .. } in &cluster.heard.drained {
        *decided.entry(report.executor.clone()).or_default() += 1;
        let wanted = variant.executor.to_string();
        if variant.mode == Mode::Handoff && report.executor != wanted && !variant.killed {
            let label = &cluster.node(*node).config.label;
            notes.push(format!("{label}: {wanted} was to decide, but its report says {}", report.executor));
        }
    }
    decided
}
