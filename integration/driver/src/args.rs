//! The command line. Whatever is wrong with it is said before anything is started, by flag and with the reason.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::settings::{Concurrency, Deploy, Mode, Scenario, Settings};

const LONG_ABOUT: &str = "\
Replaces BEAM nodes under client load and measures what becomes of their durable servers.

Starts real operating-system nodes on this machine: application nodes with the servers, a node with clients that keep calling them, and a \
node that plays the object store. Then takes application nodes away with SIGTERM, as a deploy does, once per mode, each mode on fresh \
nodes and a fresh store. Ends with a table that compares the modes.";

const AFTER_HELP: &str = "\
Modes:
  graceful  no handoff: a node stops its servers, other nodes find them at their next sweep (every 60 s)
  naive     the 20 lines anyone would write: a task stream over rehome_child, without a target
  handoff   durable_handoff with handoff_on_shutdown

Examples:
  integration/demo --quick
  integration/demo --scenario drain --nodes 3 --servers 500 --latency-ms 10
  integration/demo --scenario drain --slots 8 --modes naive,handoff
  integration/demo --deploy in-place --nodes 4 --servers 400 --json figures.json --html figures.html";

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(
    name = "integration/demo",
    bin_name = "integration/demo",
    about = "Replaces BEAM nodes under client load and measures what becomes of their durable servers",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    args_override_self = true
)]
pub struct Args {
    /// Application nodes, 2 to 32 [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=32))]
    pub nodes: Option<u32>,

    /// Durable servers: rolling spreads them evenly over the nodes, drain puts all on the first [default: 300; 120 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub servers: Option<u32>,

    /// Client processes; each calls a random server every 10 ms and never repeats a failed call [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: Option<u32>,

    /// Drain one node, or replace every node in turn
    #[arg(long, value_enum, default_value_t = Scenario::Rolling)]
    pub scenario: Scenario,

    /// Start each fresh node before the old one is told to stop, or after it is gone; rolling only [default: surge]
    #[arg(long, value_enum)]
    pub deploy: Option<Deploy>,

    /// What to compare, in this order
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE,...", default_value = "graceful,naive,handoff")]
    pub modes: Vec<Mode>,

    /// Servers moved at the same time: the task stream's in naive mode, the ceiling in handoff mode
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_concurrency: u32,

    /// In handoff mode, look for the concurrency that suits the store, or always use --max-concurrency
    #[arg(long, value_enum, default_value_t = Concurrency::Adaptive)]
    pub concurrency: Concurrency,

    /// How long the store takes for one request
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub latency_ms: u32,

    /// Requests that the store serves at the same time; more wait in line [default: unlimited]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slots: Option<u32>,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE", value_parser = writable)]
    pub json: Option<PathBuf>,

    /// Write the page with table and plot [default: integration/results/demo.html]
    #[arg(long, value_name = "FILE", value_parser = writable)]
    pub html: Option<PathBuf>,

    /// About a minute in all: fewer servers, a shorter warm-up, heartbeats every second instead of every 10 s, and discovery every
    /// 10 s instead of every 60 s, which flatters graceful
    #[arg(long)]
    pub quick: bool,
}

impl Args {
    /// The command line of this process, or an explanation and the end of the process.
    pub fn from_command_line() -> (Self, Settings) {
        let args = Self::parse();
        match args.settings() {
            Ok(settings) => (args, settings),
            Err(error) => error.exit(),
        }
    }

    /// What the flags mean together, or which of them do not fit together.
    pub fn settings(&self) -> Result<Settings, clap::Error> {
        let settings = Settings::from_args(self);
        let refuse = |reason: String| Err(Self::command().error(ErrorKind::ValueValidation, reason));

        if let (Scenario::Drain, Some(_)) = (self.scenario, self.deploy) {
            return Err(Self::command().error(
                ErrorKind::ArgumentConflict,
                "--deploy says how a rolling deploy brings fresh nodes; --scenario drain starts none",
            ));
        }
        if let Some(twice) = self.modes.iter().enumerate().find(|(at, mode)| self.modes[..*at].contains(mode)) {
            return refuse(format!("--modes names {} twice; each mode runs once", twice.1));
        }
        if self.scenario == Scenario::Rolling && settings.servers < settings.nodes {
            return refuse(format!(
                "--servers {} is less than --nodes {}: some nodes would have nothing to lose",
                settings.servers, settings.nodes
            ));
        }
        if self.json.is_some() && self.json == self.html {
            return refuse("--json and --html name the same file; one would overwrite the other".to_owned());
        }
        Ok(settings)
    }
}

/// Checked before the run: an unwritable file would otherwise be found out minutes later, with the figures gone.
fn writable(value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.as_os_str().is_empty() {
        return Err("a file name is needed".to_owned());
    }
    if path.is_dir() {
        return Err("this is a directory; a file name is needed".to_owned());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() { Ok(path) } else { Err(format!("the directory {} does not exist", folder.display())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Settings, clap::Error> {
        Args::try_parse_from([&["integration/demo"], flags].concat())?.settings()
    }

    fn refusal(flags: &[&str]) -> String {
        parse(flags).expect_err("these flags should be refused").to_string()
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn no_flags_roll_three_nodes_in_all_modes() {
        let settings = parse(&[]).unwrap();
        assert_eq!((settings.nodes, settings.servers, settings.clients), (3, 300, 20));
        assert_eq!((settings.scenario, settings.deploy), (Scenario::Rolling, Some(Deploy::Surge)));
        assert_eq!(settings.modes, [Mode::Graceful, Mode::Naive, Mode::Handoff]);
        assert_eq!((settings.max_concurrency, settings.concurrency), (50, Concurrency::Adaptive));
        assert_eq!((settings.latency_ms, settings.slots), (10, None));
        assert_eq!(settings.discovery_interval_ms, 60_000);
    }

    #[test]
    fn quick_shortens_but_explicit_flags_win() {
        let settings = parse(&["--quick"]).unwrap();
        assert_eq!((settings.servers, settings.discovery_interval_ms), (120, 10_000));
        assert_eq!(parse(&["--quick", "--servers", "500"]).unwrap().servers, 500);
    }

    #[test]
    fn modes_keep_the_order_given() {
        assert_eq!(parse(&["--modes", "handoff,graceful"]).unwrap().modes, [Mode::Handoff, Mode::Graceful]);
    }

    #[test]
    fn a_later_flag_replaces_an_earlier_one() {
        assert_eq!(parse(&["--nodes", "4", "--nodes", "5"]).unwrap().nodes, 5);
    }

    #[test]
    fn values_out_of_range_are_refused_by_flag_and_range() {
        for (flags, expected) in [
            (["--nodes", "1"], "2..=32"),
            (["--servers", "0"], "1..=100000"),
            (["--clients", "0"], "1..=1000"),
            (["--max-concurrency", "0"], "1..=10000"),
            (["--latency-ms", "20000"], "0..=10000"),
            (["--slots", "0"], "1..=10000"),
            (["--slots", "many"], "invalid digit"),
            (["--modes", "gracefull"], "graceful"),
            (["--deploy", "blue-green"], "in-place"),
            (["--html", "/no/such/directory/x.html"], "/no/such/directory does not exist"),
            (["--json", "/"], "is a directory"),
        ] {
            let message = refusal(&flags);
            assert!(message.contains(flags[0]) && message.contains(expected), "{flags:?} gave: {message}");
        }
    }

    #[test]
    fn flags_that_do_not_fit_together_are_refused_with_the_reason() {
        for (flags, expected) in [
            (&["--scenario", "drain", "--deploy", "surge"][..], "starts none"),
            (&["--modes", "naive,handoff,naive"], "names naive twice"),
            (&["--servers", "3", "--nodes", "4"], "--servers 3 is less than --nodes 4"),
            (&["--json", "x", "--html", "x"], "same file"),
        ] {
            let message = refusal(flags);
            assert!(message.contains(expected), "{flags:?} gave: {message}");
        }
    }
}
