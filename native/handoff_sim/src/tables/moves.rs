//! How often servers move while all nodes of a cluster are replaced, and how even the loads are afterwards:
//! with drains only, and with rebalances after the deploy.

use std::collections::BTreeSet;

use comfy_table::Table;
use handoff_core::Goal;
use handoff_core::time::Micros;
use serde::Serialize;

use crate::scenario::deploy::Deploy;
use crate::scenario::named::{NAMED, Named};
use crate::scenario::{Do, Load, Scenario, Strategy, When};
use crate::tables::table;
use crate::world::{self, Outcome};

/// The numbers of servers on the nodes before the deploy, in turn: uneven, 50 on average.
const SERVERS: [u32; 5] = [20, 80, 50, 35, 65];

/// The deploys and their numbers of nodes.
const DEPLOYS: [(&str, &[usize]); 4] = [
    ("surge", &[4, 16, 64]),
    ("in place", &[4, 16, 64, 256]),
    ("blue-green", &[4, 16, 64]),
    ("scale-in by a quarter", &[4, 16, 64]),
];

/// A row of the table for each deploy.
#[derive(Debug, Clone, Copy)]
struct Decider {
    name: &'static str,
    strategy: Strategy,
    /// Whether a drain begins by asking nodes for their numbers of servers.
    asks: bool,
    /// Whether all nodes rebalance after the deploy.
    rebalances: bool,
}

const NAIVE: Decider =
    Decider { name: "newest heartbeat (naive)", strategy: Strategy::NewestHeartbeat, asks: false, rebalances: false };
const OURS: Decider = Decider { name: "handoff_core", strategy: Strategy::Engine, asks: true, rebalances: false };

const DECIDERS: [Decider; 5] = [
    NAIVE,
    Decider { name: "least busy as reported", strategy: Strategy::LeastBusy, ..NAIVE },
    Decider { name: "handoff_core, heartbeats alone", asks: false, ..OURS },
    OURS,
    Decider { name: "handoff_core, then rebalance", rebalances: true, ..OURS },
];

/// The time from the end of the last drain to the first round of rebalances, and between rounds: the default
/// of `after_ms`.
const ROUND_MS: u64 = 60_000;
/// One round must be enough. The second round shows whether it was.
const ROUNDS: u64 = 2;

/// The result of one deploy, decided by the engine or by a rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub deploy: &'static str,
    /// The number of nodes before.
    pub nodes: usize,
    pub decided_by: &'static str,
    /// Moves of all servers over all servers.
    pub moves: f64,
    /// The number of moves of the server that moved most often.
    pub most_moves: u32,
    /// Servers on the fullest node at the end, divided by the mean of the remaining nodes.
    pub fullest: f64,
    /// Rounds of rebalances in which servers moved.
    pub rounds: Option<usize>,
    /// Servers that run nowhere at the end.
    pub down: u64,
}

/// Runs every deploy with every number of nodes and every decider.
pub fn moves(seed: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (kind, sizes) in DEPLOYS {
        for nodes in sizes.iter().copied() {
            rows.extend(DECIDERS.map(|decider| row(kind, nodes, decider, seed)));
        }
    }
    rows
}

/// An in-place deploy of `nodes` nodes, decided by the engine, with rebalances or without.
pub fn in_place(nodes: usize, rebalances: bool, seed: u64) -> Outcome {
    run(Deploy::InPlace, nodes, Decider { rebalances, ..OURS }, seed)
}

fn run(deploy: Deploy, nodes: usize, decider: Decider, seed: u64) -> Outcome {
    let mut scenario = Scenario { asks: decider.asks, ..scenario(deploy, nodes, decider.strategy, seed) };
    if decider.rebalances {
        scenario.script.extend(rebalances(&scenario));
    }
    world::run(scenario)
}

fn row(kind: &'static str, nodes: usize, decider: Decider, seed: u64) -> Row {
    let deploy = deploy(kind, nodes);
    let outcome = run(deploy, nodes, decider, seed);
    Row {
        deploy: kind,
        nodes,
        decided_by: decider.name,
        moves: mean_moves(&outcome),
        most_moves: outcome.moves.iter().max().copied().unwrap_or(0),
        fullest: imbalance(&outcome, deploy, nodes),
        rounds: decider.rebalances.then(|| rounds(&outcome)),
        down: outcome.down,
    }
}

/// The rebalances of all nodes that remain, some time after the last drain of the script.
fn rebalances(scenario: &Scenario) -> Vec<(When, Do)> {
    let mut drains =
        scenario.script.iter().filter_map(|(_, what)| if let Do::Drain(node) = what { Some(*node) } else { None });
    let Some(last) = drains.next_back() else { return Vec::new() };
    let nodes = scenario.nodes.len();
    let round = |number| (0..nodes).map(move |node| (When::After(last, number * ROUND_MS), Do::Rebalance(node)));
    (1..=ROUNDS).flat_map(round).collect()
}

/// The number of rounds in which servers moved.
pub fn rounds(outcome: &Outcome) -> usize {
    let rebalances = || outcome.drains.iter().filter(|drain| drain.goal == Goal::Rebalance);
    let first = rebalances().map(|drain| drain.began).min().unwrap_or(Micros::ZERO);
    let moved = rebalances().filter(|drain| drain.report.as_ref().is_some_and(|report| report.moved > 0));
    moved.map(|drain| drain.began.since(first).as_millis() / ROUND_MS).collect::<BTreeSet<_>>().len()
}

pub fn text(rows: &[Row]) -> Table {
    let mut text = table(&[
        "deploy",
        "nodes",
        "who decides",
        "moves a server",
        "most moves",
        "fullest node / mean",
        "rounds",
        "down at the end",
    ]);
    for row in rows {
        text.add_row(vec![
            row.deploy.to_owned(),
            row.nodes.to_string(),
            row.decided_by.to_owned(),
            format!("{:.2}", row.moves),
            row.most_moves.to_string(),
            format!("{:.2}", row.fullest),
            row.rounds.map(|rounds| rounds.to_string()).unwrap_or_default(),
            row.down.to_string(),
        ]);
    }
    text
}

/// The deploy without faults.
pub fn scenario(deploy: Deploy, nodes: usize, strategy: Strategy, seed: u64) -> Scenario {
    let mut scenario = Named { nodes, servers: 0, deploy, ..NAMED[0] }.scenario(seed);
    scenario.servers = (0..nodes)
        .zip(SERVERS.into_iter().cycle())
        .map(|(node, count)| Load { node, count, module: 0, sticky: 0, priority: 0 })
        .collect();
    scenario.strategy = strategy;
    scenario
}

/// Moves of all servers over all servers.
pub fn mean_moves(outcome: &Outcome) -> f64 {
    let moves: u32 = outcome.moves.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "servers of a run")]
    let servers = outcome.moves.len() as f64;
    f64::from(moves) / servers
}

/// Servers on the fullest node at the end, divided by the mean of the remaining nodes.
pub fn imbalance(outcome: &Outcome, deploy: Deploy, nodes: usize) -> f64 {
    let left = match deploy {
        Deploy::ScaleIn(leaving) => nodes - leaving,
        _ => nodes,
    };
    let fullest = outcome.loads.iter().max().copied().unwrap_or(0);
    let all: u32 = outcome.loads.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "nodes of a run")]
    let mean = f64::from(all) / left as f64;
    f64::from(fullest) / mean
}

fn deploy(kind: &str, nodes: usize) -> Deploy {
    match kind {
        "surge" => Deploy::Surge,
        "in place" => Deploy::InPlace,
        "blue-green" => Deploy::BlueGreen,
        _ => Deploy::ScaleIn(nodes / 4),
    }
}
