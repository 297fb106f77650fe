//! How often a server moves while a cluster is replaced node by node, and how evenly servers lie afterwards.

use comfy_table::Table;
use serde::Serialize;

use crate::scenario::deploy::Deploy;
use crate::scenario::named::{NAMED, Named};
use crate::scenario::{Load, Scenario, Strategy};
use crate::tables::table;
use crate::world::{self, Outcome};

/// Servers on the nodes before the deploy, in turn: clusters are never even, 50 on average.
const SERVERS: [u32; 5] = [20, 80, 50, 35, 65];

/// Who decides, whether a drain starts by asking nodes for their number of servers, and what the table calls
/// that.
const DECIDERS: [(Strategy, bool, &str); 4] = [
    (Strategy::NewestHeartbeat, false, "newest heartbeat (naive)"),
    (Strategy::LeastBusy, false, "least busy as reported"),
    (Strategy::Engine, false, "handoff_core, heartbeats alone"),
    (Strategy::Engine, true, "handoff_core"),
];

/// One deploy, decided by one of the deciders.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// How nodes are replaced.
    pub deploy: &'static str,
    /// How many there are before.
    pub nodes: usize,
    pub decided_by: &'static str,
    /// Moves of all servers over all servers.
    pub moves: f64,
    /// Moves of the server that moved most often.
    pub most_moves: u32,
    /// Servers on the fullest node at the end over the mean of those that are left.
    pub fullest: f64,
    /// Servers that run nowhere at the end.
    pub down: u64,
}

/// Deploys of these many nodes, one row each and for each decider.
pub fn moves(sizes: &[usize], seed: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for kind in ["surge", "in place", "blue-green", "scale-in by a quarter"] {
        for nodes in sizes.iter().copied() {
            for (strategy, asks, decided_by) in DECIDERS {
                let deploy = deploy(kind, nodes);
                let outcome = world::run(Scenario { asks, ..scenario(deploy, nodes, strategy, seed) });
                rows.push(Row {
                    deploy: kind,
                    nodes,
                    decided_by,
                    moves: mean_moves(&outcome),
                    most_moves: outcome.moves.iter().max().copied().unwrap_or(0),
                    fullest: imbalance(&outcome, deploy, nodes),
                    down: outcome.down,
                });
            }
        }
    }
    rows
}

/// The rows as text.
pub fn text(rows: &[Row]) -> Table {
    let mut text = table(&[
        "deploy",
        "nodes",
        "who decides",
        "moves a server",
        "most moves",
        "fullest node / mean",
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
            row.down.to_string(),
        ]);
    }
    text
}

/// The deploy with nothing else happening.
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

/// The fullest node at the end over the mean of those that are left.
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
