//! The two ways in which nodes are taken away.

use std::time::{Duration, Instant};

use super::stage::{Stage, app, wait_until_all_see_all};
use crate::Result;
use crate::beam::Cluster;
use crate::beam::link::now_us;
use crate::history::{Drain, Moment, NodeId};
use crate::progress::ModeProgress;
use crate::settings::{Deploy, Scenario, Settings};

/// When a node that was told to stop is killed: the drain (30 s), the graceful shutdown after it (55 s), and half as much again.
const STOP_BOUND: Duration = Duration::from_secs(130);

/// Takes nodes away as the scenario says.
pub fn run(
    cluster: &mut Cluster,
    stage: &Stage,
    settings: &Settings,
    progress: &ModeProgress,
    notes: &mut Vec<String>,
) -> Result<Vec<Drain>> {
    match settings.scenario {
        Scenario::Drain => Ok(vec![stop(cluster, stage.apps[0], progress, notes)?]),
        Scenario::Rolling => {
            let surge = settings.deploy != Some(Deploy::InPlace);
            let mut drains: Vec<Drain> = Vec::new();
            for (index, &old) in stage.apps.iter().enumerate() {
                if surge {
                    bring(cluster, settings, index, drains.last(), progress)?;
                    drains.push(stop(cluster, old, progress, notes)?);
                } else {
                    drains.push(stop(cluster, old, progress, notes)?);
                    bring(cluster, settings, index, drains.last(), progress)?;
                }
            }
            Ok(drains)
        }
    }
}

/// Starts a node of the new release and waits until it is a member like any other: until every node has its heartbeat, and since the
/// last drain one of every other node, too. Nodes boot in a second here; a deploy that went on at once would outrun the heartbeats by
/// which nodes know each other's load. None does that pulls images and waits for health checks.
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
    wait_until_all_see_all(cluster, last.map_or(0, |drain| drain.gone_us))
}

/// Sends SIGTERM to a node and waits for its end.
fn stop(cluster: &mut Cluster, id: NodeId, progress: &ModeProgress, notes: &mut Vec<String>) -> Result<Drain> {
    let label = cluster.node(id).config.label.clone();
    let leaving = cluster.records().iter().filter(|record| record.node == id && record.moment == Moment::Init).count();
    let leaving = u32::try_from(leaving).unwrap_or(u32::MAX);
    progress.step(&format!("{label} is stopping"));
    let started_before = cluster.started();
    let sigterm_us = cluster.node_mut(id).sigterm()?;
    let until = Instant::now() + STOP_BOUND;
    let killed = cluster.wait(&format!("{label} stopping"), STOP_BOUND * 2, |cluster| {
        progress.amount(cluster.started() - started_before, leaving);
        progress.calls(cluster.calls());
        if cluster.node_mut(id).has_ended()? {
            return Ok(Some(false));
        }
        if Instant::now() < until {
            return Ok(None);
        }
        cluster.node_mut(id).kill()?;
        Ok(Some(true))
    })?;
    if killed {
        notes.push(format!("{label} did not stop within {} s and was killed", STOP_BOUND.as_secs()));
    }
    let gone_us = cluster.node(id).gone_us.unwrap_or_else(now_us);
    Ok(Drain { node: id, sigterm_us, gone_us })
}
