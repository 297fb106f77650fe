//! `integration/bench drain`, `killed` and `leftovers`: clusters of the demo, compared with the alternatives.

pub mod drain;
pub mod killed;
pub mod leftovers;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use serde::Serialize;

use crate::Result;
use crate::interrupt::Interrupt;
use crate::paths::Paths;
use crate::progress::Progress;

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(name = "integration/bench", bin_name = "integration/bench")]
pub enum Bench {
    /// Drains a node with durable_handoff, with plain task streams and with DurableServer's own
    /// shutdown, on stores of several shapes
    Drain(drain::args::Args),
    /// Kills a node in the middle of its shutdown and counts the states in storage, with and without
    /// durable_handoff
    Killed(killed::args::Args),
    /// Measures how long servers are down that a drain could not move in time, with start_leftovers and without
    Leftovers(leftovers::args::Args),
}

/// The result of a measurement.
#[derive(Debug)]
pub struct Shown {
    /// As text.
    pub table: String,
    /// As JSON.
    pub json: String,
    /// The violated guarantees.
    pub broken: Vec<String>,
}

impl Bench {
    /// The command line of this process. Contradicting flags end the process with an explanation.
    pub fn from_command_line() -> Self {
        let bench = Self::parse();
        let refused = match &bench {
            Self::Drain(args) => args.refused(),
            Self::Killed(args) => args.refused(),
            Self::Leftovers(_) => None,
        };
        if let Some(reason) = refused {
            Self::command().error(ErrorKind::ValueValidation, reason).exit();
        }
        bench
    }

    /// The file for the figures as JSON.
    pub fn json(&self) -> Option<&std::path::Path> {
        match self {
            Self::Drain(args) => args.json.as_deref(),
            Self::Killed(args) => args.json.as_deref(),
            Self::Leftovers(args) => args.json.as_deref(),
        }
    }

    pub fn run(&self, paths: &Paths, interrupt: &Interrupt, progress: &Progress) -> Result<Shown> {
        match self {
            Self::Drain(args) => {
                let report = drain::run::run(args, paths, interrupt, progress)?;
                Ok(Shown { table: report.table(), json: json(&report), broken: report.broken() })
            }
            Self::Killed(args) => {
                let report = killed::run::run(args, paths, interrupt, progress)?;
                Ok(Shown { table: report.table(), json: json(&report), broken: report.broken() })
            }
            Self::Leftovers(args) => {
                let report = leftovers::run::run(args, paths, interrupt, progress)?;
                Ok(Shown { table: report.table(), json: json(&report), broken: report.broken() })
            }
        }
    }
}

/// A report as JSON.
fn json(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report).expect("a report has string keys and finite numbers only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Bench::command().debug_assert();
    }

    #[test]
    fn the_help_of_each_script_has_every_flag() {
        let command = Bench::command();
        for (name, script) in [
            ("drain", include_str!("../../bench.d/drain")),
            ("killed", include_str!("../../bench.d/killed")),
            ("leftovers", include_str!("../../bench.d/leftovers")),
        ] {
            let bench = command.find_subcommand(name).expect("a bench of that name");
            for flag in bench.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(script.contains(&format!("--{flag} ")), "{name} --help lacks --{flag}");
            }
        }
    }
}
