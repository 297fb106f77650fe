//! The checks after every fault: the list in the introduction of [`super::page`]. See also [`crate::kept`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etf::read_value;
use serde::{Deserialize, Serialize};

use super::Setup;
use super::scene::Scene;
use crate::beam::commands::{Command, Counter, read_all, read_calls, read_keys, read_names};
use crate::beam::events::HeldUp;
use crate::beam::node_config::Role;
use crate::beam::{Cluster, DrainEnd};
use crate::history::{Drain, Key, Moment, NodeId, Record, lives};
use crate::kept::{FinalWrites, set_back};
use crate::metrics::{Observed, figures};
use crate::quantiles::millis;
use crate::report::nodes::not_mixed;
use crate::report::{ModeReport, Versions};
use crate::run::recovery::counters;
use crate::run::unsynced::are_fewer;
use crate::{Error, Result};

/// How many servers a message lists.
const SOME: usize = 5;

/// The interval of polls of the whole cluster.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The time limit for the library's processes to end after the last server is back; attempts have their own.
const TIDY_WITHIN: Duration = Duration::from_secs(20);

/// The time from SIGTERM to the start of the drain, and from its end until the driver knows of it.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// How much later than its deadline a shutdown may continue, in microseconds.
const LATE_US: u64 = 200_000;

/// Starts in flight when a node was told to stop may still finish there within this time, in microseconds.
const KNOWN_US: u64 = 1_000_000;

#[derive(Debug)]
pub struct Before {
    ours: BTreeMap<NodeId, Vec<String>>,
}

#[derive(Debug)]
pub struct Found {
    /// From the fault's last act until every server ran exactly once and answered.
    pub settled_s: f64,
    /// The figures that the demo shows as well.
    pub figures: ModeReport,
    pub versions: Versions,
    /// How long after its deadline the latest shutdown continued; `None` if no node stopped gracefully.
    pub late_ms: Option<f64>,
    /// States in storage at the kill, where they were counted.
    pub stored: Option<Stored>,
    /// The executor at the end of each drain, and the fallbacks before.
    pub decided: Vec<String>,
    /// The checks that failed; empty for a run that passed.
    pub broken: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The number with `durable_handoff`.
    pub with: u32,
    /// The number of the same run without it.
    pub without: u32,
}

impl Found {
    /// Records how many states were in storage, with `durable_handoff` and without it.
    pub fn compare(&mut self, with: u32, without: u32) {
        self.stored = Some(Stored { with, without });
        if are_fewer(with, without) {
            self.broken
                .push(format!("{with} states were in storage at the kill, and {without} without durable_handoff"));
        }
    }
}

pub fn before(cluster: &mut Cluster) -> Result<Before> {
    Ok(Before { ours: ours(cluster)? })
}

/// Runs all checks after a fault. Nodes may still be stopping.
pub fn after(scene: &mut Scene, before: &Before) -> Result<Found> {
    let drains = scene.drains()?;
    let since = Instant::now();
    let bound = Duration::from_secs(scene.setup.bound_s.into());
    let mut broken = Vec::new();
    scene.progress.step("waiting until every server runs exactly once");
    let unsettled = settle(scene, since + bound)?;
    let settled_s = since.elapsed().as_secs_f64();
    if let Some(reason) = &unsettled {
        broken.push(format!("after {} s: {reason}", bound.as_secs()));
    }

    let client = scene.stage.client;
    let mut calls = read_calls(&scene.cluster.call(client, Command::StopClients)?)?;
    if scene.incremented {
        (0..scene.settings.servers).for_each(|key| *calls.acknowledged.entry(key).or_default() += 1);
    }
    let counters = counters(&mut scene.cluster, &scene.stage, scene.settings)?;
    let all_nodes: Vec<_> = alive(&scene.cluster);
    scene.cluster.call_each(all_nodes.into_iter().map(|id| (id, Command::Flush)).collect(), |_| {})?;
    let figures = figures(&Observed {
        nodes: scene.cluster.nodes().iter().map(Into::into).collect(),
        records: &scene.cluster.heard.records,
        began_us: 0,
        drains: &drains,
        calls: &calls,
        counters: &counters,
        servers: scene.settings.servers,
        all_back: unsettled.is_none(),
        final_writes: scene.setup.final_writes,
    });
    broken.append(&mut scene.broken);
    broken.extend(figures.broken());
    broken.extend(sent_to_stopping(&scene.cluster.heard.records, &drains));
    if figures.moved * 100 < scene.setup.moves_percent * figures.total {
        broken.push(format!("{} of {} servers were not moved", figures.total - figures.moved, figures.total));
    }
    broken.extend(scene.missed());
    broken.extend(scene.unexpected(&figures));
    broken.extend(not_mixed(&scene.settings.releases, &figures.nodes));
    broken.extend(outlived(scene)?);
    broken.extend(overdue(&scene.cluster, &drains, scene.setup));
    broken.extend(late(scene, &drains));
    if scene.setup.final_writes == FinalWrites::FailAsReported {
        let all_lives = lives(&scene.cluster.heard.records, &drains);
        let reported = scene.cluster.heard.drained.iter().map(|end| end.report.not_stored).sum();
        broken.extend(unreported(set_back(&counters, &all_lives, &calls), reported));
    }
    broken.extend(left_behind(&mut scene.cluster, before)?);
    let versions = scene.cluster.node(client).versions.clone();
    let versions = versions.ok_or_else(|| Error::protocol("a client without versions"))?.into();
    let late_ms = scene.cluster.heard.held_up.iter().map(|(_, held_up)| millis(held_up.late_us())).reduce(f64::max);
    Ok(Found { settled_s, figures, versions, late_ms, stored: None, decided: decided(&scene.cluster), broken })
}

fn decided(cluster: &Cluster) -> Vec<String> {
    let label = |id: NodeId| &cluster.node(id).config.label;
    let ends = cluster
        .heard
        .drained
        .iter()
        .map(|end| format!("{}: {}, {}", label(end.node), end.report.executor, end.report.ended));
    let fallbacks = cluster.heard.fallbacks.iter().map(|(id, reason)| format!("{}: {reason}", label(*id)));
    ends.chain(fallbacks).collect()
}

fn alive(cluster: &Cluster) -> Vec<NodeId> {
    cluster.alive().filter(|&id| cluster.node(id).config.role != Role::Store).collect()
}

/// Waits until every server has one process in the whole cluster and answers the clients' node. Returns what
/// is wrong, if that does not happen.
fn settle(scene: &mut Scene, until: Instant) -> Result<Option<String>> {
    loop {
        let wrong = match wrong_owners(scene)? {
            Some(wrong) => Some(wrong),
            None => silent(&counters(&mut scene.cluster, &scene.stage, scene.settings)?),
        };
        if wrong.is_none() || Instant::now() >= until {
            return Ok(wrong);
        }
        scene.cluster.listen_for(LOOK_EVERY, "every server running exactly once")?;
    }
}

fn wrong_owners(scene: &mut Scene) -> Result<Option<String>> {
    let apps: Vec<_> = scene.cluster.alive_as(Role::App).map(|id| (id, Command::Running)).collect();
    let mut owners: BTreeMap<Key, u32> = (0..scene.settings.servers).map(|key| (key, 0)).collect();
    for answer in scene.cluster.call_each(apps, |_| {})? {
        for key in read_keys(&answer)? {
            *owners.entry(key).or_default() += 1;
        }
    }
    let with = |wanted: &dyn Fn(u32) -> bool| -> Vec<Key> {
        owners.iter().filter(|(_, count)| wanted(**count)).map(|(&key, _)| key).collect()
    };
    let (none, several) = (with(&|count| count == 0), with(&|count| count > 1));
    let some = |keys: &[Key]| keys.iter().take(SOME).map(|key| format!(" {key}")).collect::<String>();
    Ok((none.len() + several.len() > 0).then(|| {
        let (nowhere, twice) = (some(&none), some(&several));
        format!("{} servers run nowhere{nowhere}, {} run more than once{twice}", none.len(), several.len())
    }))
}

fn silent(counters: &[Counter]) -> Option<String> {
    let silent = counters.iter().filter(|counter| counter.node.is_none()).count();
    (silent > 0).then(|| format!("{silent} servers do not answer"))
}

/// Reservations that have expired although every server had time to start again.
fn outlived(scene: &mut Scene) -> Result<Option<String>> {
    let store = scene.stage.store.ok_or_else(|| Error::protocol("a run of faults without its store"))?;
    let answer = scene.cluster.call(store, Command::Reservations)?;
    let reservations: Vec<(String, u64)> =
        read_all(&answer, "reservations", |reservation| read_value(reservation, "reservation"))?;
    let outlived: Vec<_> = reservations.into_iter().filter(|(_, left_ms)| *left_ms == 0).map(|(key, _)| key).collect();
    Ok((!outlived.is_empty()).then(|| format!("{} reservations outlived their time: {:?}", outlived.len(), outlived)))
}

/// Servers that were started on a node that had been told to stop.
fn sent_to_stopping(records: &[Record], drains: &[Drain]) -> Option<String> {
    let stopping = |record: &&Record| {
        let told = drains.iter().find(|drain| drain.node == record.node);
        told.is_some_and(|drain| (drain.sigterm_us + KNOWN_US + 1..=drain.gone_us).contains(&record.at_us))
    };
    let late = |record: &&Record| record.moment == Moment::Init && stopping(record);
    let count = records.iter().filter(late).count();
    (count > 0).then(|| format!("{count} servers were started on a node that had been told to stop"))
}

/// A problem if more servers lost changes than the drains reported as not stored.
fn unreported(set_back: u64, reported: u64) -> Option<String> {
    (set_back > reported)
        .then(|| format!("{set_back} servers lack increments, and {reported} are reported as not stored"))
}

/// A problem if the end of a drain was reported too long after the node was told to stop.
fn overdue(cluster: &Cluster, drains: &[Drain], setup: Setup) -> Option<String> {
    let Setup { timeout_ms, slow_child_ms, .. } = setup;
    let bound = Duration::from_millis(timeout_ms.into()) + Duration::from_millis(slow_child_ms.into()) + ON_THE_WAY;
    let took = |end: &DrainEnd| {
        let told = drains.iter().find(|drain| drain.node == end.node)?;
        Some(Duration::from_micros(end.report.at_us.saturating_sub(told.sigterm_us)))
    };
    let longest = cluster.heard.drained.iter().filter_map(took).max()?;
    let seconds = longest.as_secs_f64();
    (longest > bound).then(|| format!("a node waited {seconds:.1} s for its drain, and may wait {timeout_ms} ms"))
}

/// Problems with how long drains delayed the shutdowns of nodes that were not killed.
fn late(scene: &Scene, drains: &[Drain]) -> Vec<String> {
    let orderly = drains.iter().map(|drain| drain.node).filter(|&node| !scene.was_killed(node));
    let of_node = |node| {
        let held_up = scene.cluster.heard.held_up.iter().filter(|(of, _)| *of == node).map(|(_, held_up)| *held_up);
        let wrong = too_long(&held_up.collect::<Vec<_>>(), scene.setup.timeout_ms)?;
        Some(format!("{} {wrong}", scene.cluster.node(node).config.label))
    };
    orderly.filter_map(of_node).collect()
}

/// A node that stops gracefully reports its delay. The shutdown must not continue later than its deadline,
/// and the deadline must not be too late.
fn too_long(held_up: &[HeldUp], timeout_ms: u32) -> Option<String> {
    if held_up.is_empty() {
        return Some("did not say how long its drain held it up".to_owned());
    }
    let wrong = |of: &&HeldUp| of.late_us() > LATE_US || of.drawn_us > u64::from(timeout_ms) * 1_000;
    held_up.iter().find(wrong).map(|of| {
        let [took, drawn] = [of.took_us, of.drawn_us].map(millis);
        format!("was delayed for {took} ms; its deadline was {drawn} ms away, and the limit is {timeout_ms} ms")
    })
}

fn ours(cluster: &mut Cluster) -> Result<BTreeMap<NodeId, Vec<String>>> {
    let nodes = alive(cluster);
    let answers = cluster.call_each(nodes.iter().map(|&id| (id, Command::Ours)).collect(), |_| {})?;
    nodes.into_iter().zip(answers).map(|(id, answer)| Ok((id, read_names(&answer)?))).collect()
}

fn left_behind(cluster: &mut Cluster, before: &Before) -> Result<Vec<String>> {
    let until = Instant::now() + TIDY_WITHIN;
    loop {
        let now = ours(cluster)?;
        let left: Vec<String> = now
            .iter()
            .filter_map(|(id, there)| {
                let extra = surplus(there, before.ours.get(id)?);
                let label = &cluster.node(*id).config.label;
                (!extra.is_empty()).then(|| format!("left on {label}: {}", extra.join(", ")))
            })
            .collect();
        if left.is_empty() || Instant::now() >= until {
            return Ok(left);
        }
        cluster.listen_for(LOOK_EVERY, "the library's processes ending")?;
    }
}

/// The names that occur more often than before.
fn surplus(now: &[String], before: &[String]) -> Vec<String> {
    let mut before = before.to_vec();
    let mut extra = Vec::new();
    for name in now {
        match before.iter().position(|known| known == name) {
            Some(at) => drop(before.swap_remove(at)),
            None => extra.push(name.clone()),
        }
    }
    extra
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_continues_by_its_deadline_and_the_deadline_is_within_the_timeout() {
        let wrong = |took_us, drawn_us| too_long(&[HeldUp { took_us, drawn_us }], 15_000);
        assert_eq!(
            [wrong(15_200_000, 15_000_000), wrong(90_000, 15_000_000), wrong(1_100_000, 1_000_000)],
            [None, None, None]
        );
        assert!(wrong(15_200_001, 15_000_000).unwrap().contains("15200.001 ms"));
        assert!(wrong(1_200_001, 1_000_000).is_some(), "late for a deadline that was cut");
        assert!(wrong(90_000, 15_000_001).is_some(), "drawn later than the timeout");
        assert!(too_long(&[], 15_000).unwrap().contains("did not say"));
    }

    #[test]
    fn a_server_that_starts_on_a_node_a_second_after_it_was_told_to_stop_is_a_problem() {
        let drains = [Drain { node: NodeId(0), sigterm_us: 10, gone_us: 5_000_000 }];
        let found = |node, moment, at_us| {
            let record = Record { node: NodeId(node), key: 7, process: "<0.5.0>".into(), moment, at_us, counter: 0 };
            sent_to_stopping(&[record], &drains)
        };
        let late_us = drains[0].sigterm_us + KNOWN_US + 1;
        assert!(found(0, Moment::Init, late_us).unwrap().starts_with("1 servers"));
        assert_eq!(found(0, Moment::Init, late_us - 1), None, "it was in flight");
        assert_eq!(found(0, Moment::Terminate, late_us), None, "it stopped there");
        assert_eq!(found(1, Moment::Init, late_us), None, "another node");
        assert_eq!(found(0, Moment::Init, drains[0].gone_us + 1), None, "it was started again");
    }

    #[test]
    fn more_servers_with_lost_changes_than_reported_are_a_problem() {
        assert_eq!([unreported(0, 0), unreported(2, 2), unreported(1, 27)], [None, None, None]);
        assert!(unreported(3, 2).is_some_and(|problem| problem.starts_with("3 servers")));
    }

    #[test]
    fn an_additional_process_counts_as_left_behind_and_a_missing_one_does_not() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let before = names(&["process Drainer", "process Agent", "table status"]);
        assert!(surplus(&names(&["table status", "process Drainer"]), &before).is_empty());
        assert_eq!(surplus(&names(&["process Drainer", "process Drainer"]), &before), ["process Drainer"]);
    }
}
