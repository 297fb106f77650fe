//! Measurements of the node; `integration/bench node` builds and runs it.
//!
//! - Round trips between this node's distribution layer and a BEAM process, against two BEAMs, in turn in the
//!   same run, over TCP and TLS.
//! - Resident memory of `durable-handoff-node` with a drain of a million servers.
//! - With `--idle`: a node that holds many connections and says nothing but ticks.

mod beam;
mod certificates;
mod idle;
mod memory;
mod round_trips;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use serde_json::json;

/// What to measure.
#[derive(Debug, Parser)]
struct Flags {
    /// Rounds of each round-trip figure, Rust and BEAM in turn; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one round, milliseconds
    #[arg(long, default_value_t = 1_000)]
    round_ms: u64,
    /// Servers registered when memory is measured
    #[arg(long, default_value_t = 1_000_000)]
    servers: u32,
    /// Hold idle connections too: takes the time of --idle-seconds, and about 40 MB for each BEAM
    #[arg(long)]
    idle: bool,
    /// Hold idle connections and measure nothing else; fails when one is lost
    #[arg(long)]
    idle_only: bool,
    /// BEAM nodes that are connected
    #[arg(long, default_value_t = 50)]
    idle_nodes: usize,
    /// For how long
    #[arg(long, default_value_t = 180)]
    idle_seconds: u64,
    /// Their net_ticktime, several in turn
    #[arg(long, value_delimiter = ',', default_values_t = [8, 15, 60])]
    idle_tick_time: Vec<u64>,
    /// The figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let mut results = serde_json::Map::new();
    if !flags.idle_only {
        // Runs on a worker of the runtime, as the node's coordinator does.
        let round_trips = tokio::spawn(round_trips::measure(flags.rounds, flags.round_ms)).await??;
        print(&round_trips::table(&round_trips))?;
        results.insert("round_trips".to_owned(), serde_json::to_value(&round_trips)?);
        let memory = memory::measure(flags.servers).await?;
        print(&memory.table())?;
        results.insert("memory".to_owned(), serde_json::to_value(&memory)?);
    }
    if flags.idle || flags.idle_only {
        let idle = idle::measure(flags.idle_nodes, flags.idle_seconds, &flags.idle_tick_time).await?;
        print(&idle.table())?;
        results.insert("idle".to_owned(), serde_json::to_value(&idle)?);
    }
    if let Some(file) = flags.json {
        let text = serde_json::to_string_pretty(&json!({ "bench": "node", "results": results }))?;
        std::fs::write(&file, text + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
