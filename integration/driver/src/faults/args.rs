//! The command line of runs of faults.

use std::path::PathBuf;

use clap::Parser;

use super::Fault;
use super::catalogue::all;
use crate::variant::Client;

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(
    name = "integration/faults",
    bin_name = "integration/faults",
    about = "Kills, pauses and disconnects nodes of real clusters while clients call, and checks that nothing is lost",
    after_help = "After each run every server has to run exactly once within the fault's bound. No acknowledged increment may be lost \
                  that was stored or could be, and none counted twice. No reservation may outlive its time, no process or table of \
                  the library may be left, and no drain may hold up a shutdown for longer than its deadline and 200 ms. Half of the \
                  servers store each increment, the others when they stop.\n\
                  Exits with 1 when any of that does not hold."
)]
pub struct Args {
    /// Only these faults; --list names all
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = named)]
    pub only: Vec<String>,
    /// How often each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub times: u32,
    /// Seed of the first run; run number n of a fault has this seed plus n [default: a random one, printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How clients call servers
    #[arg(long, value_enum, default_value_t = Client::Plain)]
    pub client: Client,
    /// Commands that start nodes instead of `elixir`, each with its own code path; several take turns
    #[arg(long, value_delimiter = ',', value_name = "COMMAND,...")]
    pub beams: Vec<String>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the table of all faults, from this run, into this page [docs/RELIABILITY.md]
    #[arg(long, value_name = "FILE", conflicts_with = "only", num_args = 0..=1, default_missing_value = "docs/RELIABILITY.md")]
    pub write_docs: Option<PathBuf>,
    /// Add the results of runs on the real DurableServer (their --json) to that page
    #[arg(long, value_name = "FILE,...", value_delimiter = ',', requires = "write_docs")]
    pub real: Vec<PathBuf>,
    /// Run nothing, and write that page from earlier runs with the stand-in (their --json)
    #[arg(long, value_name = "FILE,...", value_delimiter = ',', requires = "write_docs", conflicts_with = "json")]
    pub stand_in: Vec<PathBuf>,
    /// Name all faults, and end
    #[arg(long)]
    pub list: bool,
}

impl Args {
    pub fn faults(&self) -> Vec<&'static Fault> {
        let wanted = |fault: &&Fault| self.only.is_empty() || self.only.iter().any(|name| name == fault.name);
        all().into_iter().filter(wanted).collect()
    }
}

fn named(name: &str) -> Result<String, String> {
    let names: Vec<&str> = all().iter().map(|fault| fault.name).collect();
    if names.contains(&name) { Ok(name.to_owned()) } else { Err(format!("there are {}", names.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_fault_is_refused_with_a_list_of_the_known_ones() {
        let error = Args::try_parse_from(["integration/faults", "--only", "tsunami"]).unwrap_err().to_string();
        assert!(error.contains("target-hangs"), "{error}");
    }

    #[test]
    fn selected_faults_run_in_the_order_of_the_catalogue() {
        let args = Args::try_parse_from(["integration/faults", "--only", "store-down,source-killed"]).unwrap();
        let names: Vec<_> = args.faults().iter().map(|fault| fault.name).collect();
        assert_eq!(names, ["source-killed", "store-down"]);
        assert_eq!(Args::try_parse_from(["integration/faults"]).unwrap().faults().len(), all().len());
    }
}
