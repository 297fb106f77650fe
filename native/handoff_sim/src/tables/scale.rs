//! A million servers on a thousand nodes in one run: time and memory.

use std::time::Instant;

use comfy_table::Table;
use handoff_core::Config;
use handoff_core::time::Micros;
use serde::Serialize;

use crate::scenario::deploy::Deploy;
use crate::scenario::named::{NAMED, Named};
use crate::scenario::{Load, Scenario};
use crate::store::StoreShape;
use crate::tables::table;
use crate::world;

/// The number of drains at the same time. They share the servers and one ceiling.
const SOURCES: usize = 10;
const CEILING: u32 = 200;

/// Ten of `nodes` nodes drain `servers` servers together, with one ledger and limiter.
pub fn scenario(servers: u32, nodes: usize, seed: u64) -> Scenario {
    let mut scenario =
        Named { nodes, servers: 0, deploy: Deploy::WholeStop, coordinators: 1, ..NAMED[0] }.scenario(seed);
    scenario.name = format!("{servers} servers, {nodes} nodes");
    scenario.script.truncate(SOURCES);
    let share = servers / u32::try_from(SOURCES).unwrap_or(1);
    scenario.servers = (0..SOURCES)
        .flat_map(|node| {
            // Two modules alternately, so that every source has two classes of servers.
            [0, 1].map(|module| Load { node, count: share / 2, module, sticky: 0, priority: 0 })
        })
        .collect();
    for node in &mut scenario.nodes {
        node.limit = Some(servers / u32::try_from(nodes).unwrap_or(1) * 2);
    }
    scenario.nodes.iter_mut().take(SOURCES).for_each(|node| node.limit = None);
    scenario.store = StoreShape::steady(None, 10.0);
    scenario.config = Config { timeout_ms: 3_600_000, max_concurrency: CEILING, ..scenario.config };
    scenario
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub servers: u32,
    pub nodes: usize,
    pub moved: u64,
    pub events: u64,
    /// The longest drain, seconds of virtual time.
    pub virtual_s: f64,
    /// The run, seconds of this machine.
    pub wall_s: f64,
    /// Time of the run per server, in microseconds.
    pub us_per_server: f64,
    /// The peak memory of this process, where the system reports it.
    pub peak_mib: Option<u64>,
}

/// Runs the scenario and measures its cost.
pub fn scale(servers: u32, nodes: usize, seed: u64) -> (Row, world::Outcome) {
    let begun = Instant::now();
    let outcome = world::run(scenario(servers, nodes, seed));
    let took = begun.elapsed().as_secs_f64();
    let longest = outcome.drains.iter().map(|drain| drain.took).max().unwrap_or(Micros::ZERO);
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run fit")]
    let row = Row {
        servers,
        nodes,
        moved: outcome.moved(),
        events: outcome.events,
        virtual_s: longest.0 as f64 / 1e6,
        wall_s: took,
        us_per_server: took * 1e6 / f64::from(servers.max(1)),
        peak_mib: peak_mib(),
    };
    (row, outcome)
}

pub fn text(row: &Row) -> Table {
    let mut text =
        table(&["servers", "nodes", "moved", "events", "virtual time", "wall time", "a server", "peak memory"]);
    text.add_row(vec![
        row.servers.to_string(),
        row.nodes.to_string(),
        row.moved.to_string(),
        row.events.to_string(),
        format!("{:.0} s", row.virtual_s),
        format!("{:.1} s", row.wall_s),
        format!("{:.1} us", row.us_per_server),
        row.peak_mib.map_or("not known here".into(), |mib| format!("{mib} MiB")),
    ]);
    text
}

/// The peak memory of this process, as Linux reports it.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1_024)
}
