//! The command line of the simulator. Exits 1 when a promise was broken, 2 when it was called wrongly.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use handoff_sim::check::Family;
use handoff_sim::scenario::named::{NAMED, Named};
use handoff_sim::tables::{moves, scale, stores};
use handoff_sim::{Outcome, check, run_traced};

/// Runs the drain engine in a simulated cluster.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// Run the random scenario of this seed and show everything that happened.
    #[arg(long)]
    seed: Option<u64>,
    /// The same for the random scenario of rebalances.
    #[arg(long, conflicts_with = "seed")]
    rebalance_seed: Option<u64>,
    /// Show this many lines of the trace, the last ones.
    #[arg(long, default_value_t = 200, global = true)]
    lines: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many random scenarios and report the seeds that break a promise.
    Check {
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// The number of seeds.
        #[arg(long, default_value_t = 10_000)]
        runs: u64,
    },
    /// Print moves per server over deploys, with and without a rebalance after them, and gaps and drain times on many stores.
    Table {
        /// The number of runs for each number of the second table.
        #[arg(long, default_value_t = 5)]
        seeds: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Drain a million servers on a thousand nodes and print time and memory.
    Scale {
        /// How many servers.
        #[arg(long, default_value_t = 1_000_000)]
        servers: u32,
        /// How many nodes; ten of them drain.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(11..))]
        nodes: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a named scenario; without a name, list the names.
    Scenario {
        /// Its name.
        name: Option<String>,
        /// The seed of all latencies and faults.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let kept = match cli.command {
        None => {
            let (family, seed) = match cli.rebalance_seed {
                Some(seed) => (Family::Rebalances, seed),
                None => (Family::Drains, cli.seed.unwrap_or_default()),
            };
            println!("{:#?}", family.scenario(seed));
            show(&family.run(seed, run_traced), cli.lines)
        }
        Some(Command::Check { from, runs }) => {
            println!("seeds {from} to {}", from.saturating_add(runs));
            let checked = [Family::Drains, Family::Rebalances].map(|family| check::check(family, from, runs));
            checked.iter().for_each(|checked| print!("{}", checked.describe()));
            checked.iter().all(|checked| checked.failed.is_empty())
        }
        Some(Command::Table { seeds, json }) => {
            let (moves, stores) = (moves::moves(1), stores::stores(seeds.max(1)));
            if json {
                println!("{:#}", serde_json::json!({ "moves": moves, "stores": stores }));
            } else {
                println!("Moves per server, 20 to 80 servers on each node before:\n{}\n", moves::text(&moves));
                println!("500 servers to three nodes, medians of {seeds} runs:\n{}", stores::text(&stores));
            }
            true
        }
        Some(Command::Scale { servers, nodes, json }) => {
            let (row, outcome) = scale::scale(servers, nodes as usize, 1);
            if json {
                println!("{:#}", serde_json::json!({ "scale": row }));
                outcome.broken.is_empty()
            } else {
                println!("{}", scale::text(&row));
                show(&outcome, 0)
            }
        }
        Some(Command::Scenario { name: None, .. }) => {
            NAMED.iter().for_each(|named| println!("{}", named.name));
            true
        }
        Some(Command::Scenario { name: Some(name), seed }) => show(&run_traced(named(&name).scenario(seed)), cli.lines),
    };
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The scenario of that name. An unknown name ends the program.
fn named(name: &str) -> &'static Named {
    Named::find(name).unwrap_or_else(|| {
        let names: Vec<&str> = NAMED.iter().map(|named| named.name).collect();
        let message = format!("no scenario is called {name}, there are {}", names.join(", "));
        Cli::command().error(ErrorKind::InvalidValue, message).exit()
    })
}

/// Prints a run; true when every promise was kept.
fn show(outcome: &Outcome, lines: usize) -> bool {
    print!("{}", check::describe(outcome, lines));
    outcome.broken.is_empty()
}
