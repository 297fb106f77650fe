//! The command line of `integration/bench leftovers`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::flags::writable;

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(
    name = "integration/bench leftovers",
    bin_name = "integration/bench leftovers",
    after_help = "The node is shut down with a timeout that is too short. A gap is the time from a server's stop to its start elsewhere, of \
                  servers that the drain did not move. Without start_leftovers they wait for the next sweep. Exits with 1 when a server \
                  ends without exactly one owner, or without what it stored."
)]
pub struct Args {
    /// Servers of the node that is shut down, each with something stored
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub servers: u32,

    /// Timeout of the drain
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub timeout_ms: u32,

    /// Duration of one request of the store
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub latency_ms: u32,

    /// Requests the store serves at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slots: u32,

    /// Other nodes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=31))]
    pub receivers: u32,

    /// Part of the store's requests that fail
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub fail: u32,

    /// Kill one receiver when it has started some
    #[arg(long)]
    pub kill_target: bool,

    /// Kill the node right after its drain
    #[arg(long)]
    pub kill_source: bool,

    /// One of the two runs
    #[arg(long, value_enum)]
    pub only: Option<Side>,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE", value_parser = writable)]
    pub json: Option<PathBuf>,
}

/// Whether the nodes have `start_leftovers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Side {
    With,
    Without,
}

fn percent(value: &str) -> Result<u32, String> {
    match value.trim_end_matches('%').parse() {
        Ok(percent) if percent < 100 => Ok(percent),
        _ => Err("takes a whole number below 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_percentages_below_a_hundred() {
        let parse = |value| Args::try_parse_from(["integration/bench leftovers", "--fail", value]);
        assert_eq!([parse("5").unwrap().fail, parse("5%").unwrap().fail], [5, 5]);
        for refused in ["100", "0.5", "many"] {
            assert!(parse(refused).unwrap_err().to_string().contains("--fail"), "{refused}");
        }
    }
}
