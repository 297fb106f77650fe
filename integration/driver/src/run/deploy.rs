//! The ways to stop nodes.

use std::time::Instant;

use super::cpu;
use super::stage::{Stage, app, wait_until_all_see_all, wait_until_coordinated};
use crate::Result;
use crate::beam::Cluster;
use crate::beam::link::now_us;
use crate::history::{Drain, Moment, NodeId, Record};
use crate::progress::ModeProgress;
use crate::rust_node::RustNode;
use crate::settings::{Deploy, STOP_BOUND, Scenario, Settings};

/// Stops nodes as the scenario requires. `before`: the processor time of nodes before the drain that is measured.
pub fn run(
    cluster: &mut Cluster,
    stage: &Stage,
    settings: &Settings,
    progress: &ModeProgress,
    notes: &mut Vec<String>,
    before: &mut Vec<f64>,
) -> Result<Vec<Drain>> {
    match settings.scenario {
        Scenario::Drain | Scenario::Together => {
            let leaving = settings.full_nodes() as usize;
            let mut drains = stop(cluster, &stage.apps[..leaving], settings, progress, notes)?;
            if settings.second_drain {
                progress.step("waiting for heartbeats after the first drain");
                wait_until_all_see_all(cluster, drains.last().map_or(0, |drain| drain.gone_us))?;
                *before = cpu::measure_from_here(cluster, stage)?;
                drains.extend(stop(cluster, &stage.apps[leaving..=leaving], settings, progress, notes)?);
            }
            Ok(drains)
        }
        Scenario::Rolling => {
            let surge = settings.deploy != Some(Deploy::InPlace);
            let mut drains: Vec<Drain> = Vec::new();
            for (index, &old) in stage.apps.iter().enumerate() {
                if surge {
                    bring(cluster, settings, index, drains.last(), progress)?;
                    drains.extend(stop(cluster, &[old], settings, progress, notes)?);
                } else {
                    drains.extend(stop(cluster, &[old], settings, progress, notes)?);
                    bring(cluster, settings, index, drains.last(), progress)?;
                }
            }
            Ok(drains)
        }
        Scenario::ScaleOut => {
            let joining = settings.joining.unwrap_or(0) as usize;
            let fresh: Vec<_> = (0..joining).map(|index| app(settings, 2, index)).collect();
            progress.step(&format!("starting {joining} nodes"));
            cluster.start(fresh)?;
            progress.step("waiting for their heartbeats");
            wait_until_coordinated(cluster)?;
            wait_until_all_see_all(cluster, 0)?;
            Ok(Vec::new())
        }
    }
}

/// Starts a node of the new release and waits until it is a full member: until every node has its heartbeat
/// and, since the last drain, one of every other node. Nodes boot in a second here. A deploy without this
/// wait would be faster than the heartbeats that carry each node's load. Real deploys pull images and wait
/// for health checks, so they are slower.
fn bring(
    cluster: &mut Cluster,
    settings: &Settings,
    index: usize,
    last: Option<&Drain>,
    progress: &ModeProgress,
) -> Result<()> {
    let fresh = app(settings, 2, index);
    progress.step(&format!("starting {}", fresh.label));
    let waiting = format!("waiting for heartbeats after starting {}", fresh.label);
    cluster.start(vec![fresh])?;
    progress.step(&waiting);
    wait_until_coordinated(cluster)?;
    wait_until_all_see_all(cluster, last.map_or(0, |drain| drain.gone_us))
}

/// Sends SIGTERM to nodes, one directly after the other, and waits until all have ended.
fn stop(
    cluster: &mut Cluster,
    ids: &[NodeId],
    settings: &Settings,
    progress: &ModeProgress,
    notes: &mut Vec<String>,
) -> Result<Vec<Drain>> {
    let labels = ids.iter().map(|&id| cluster.node(id).config.label.clone()).collect::<Vec<_>>().join(" and ");
    let started = |record: &&Record| ids.contains(&record.node) && record.moment == Moment::Init;
    let leaving = u32::try_from(cluster.heard.records.iter().filter(started).count()).unwrap_or(u32::MAX);
    progress.step(&format!("stopping {labels}"));
    let started_before = cluster.heard.started;
    let mut sigterms = Vec::new();
    for &id in ids {
        sigterms.push(cluster.node_mut(id).sigterm()?);
    }

    let until = Instant::now() + STOP_BOUND;
    let mut kill_at = settings.kill_node_at.filter(|_| cluster.variant().killed);
    let killed = cluster.wait(&format!("{labels} stopping"), STOP_BOUND * 2, |cluster| {
        let moved = cluster.heard.started - started_before;
        progress.amount(moved, leaving);
        progress.calls(cluster.heard.calls);
        if kill_at.is_some_and(|part| f64::from(moved) >= part * f64::from(leaving)) {
            kill_at = None;
            notes.push(format!("the Rust node was killed when {moved} of {leaving} servers had moved"));
            cluster.rust_node().map_or(Ok(()), RustNode::kill)?;
        }
        let mut running = Vec::new();
        for &id in ids {
            if !cluster.node_mut(id).has_ended()? {
                running.push(id);
            }
        }
        if running.is_empty() || Instant::now() >= until {
            for &id in &running {
                cluster.node_mut(id).kill()?;
            }
            return Ok(Some(running));
        }
        Ok(None)
    })?;
    for id in killed {
        let label = &cluster.node(id).config.label;
        notes.push(format!("{label} did not stop within {} s and was killed", STOP_BOUND.as_secs()));
    }
    let gone_us = |id| cluster.node(id).gone_us.unwrap_or_else(now_us);
    Ok(ids.iter().zip(sigterms).map(|(&id, sigterm_us)| Drain { node: id, sigterm_us, gone_us: gone_us(id) }).collect())
}
