//! The command line. Errors are found before anything is started, and name the flag and the reason.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::flags::{fraction, twice, writable};
use crate::releases::Releases;
use crate::settings::{CallKind, Concurrency, Deploy, Scenario, Settings, Synced};
use crate::store::{self, Store};
use crate::variant::{Client, Executor, Mode, Variant};

const LONG_ABOUT: &str = "\
Replaces BEAM nodes under client load and measures what happens to their durable servers.

Starts real operating-system nodes on this machine: application nodes with the servers, a node with clients that call \
them, and on request a simulated object store and the Rust node. Then stops application nodes with SIGTERM, as a \
deploy does, once per mode, each mode on fresh nodes and a fresh store. Ends with a table that compares the modes.";

const AFTER_HELP: &str = "\
Modes:
  graceful  no handoff: a node stops its servers, other nodes find them at their next sweep (every 60 s)
  naive     a task stream over rehome_child without a target, in 20 lines
  handoff   durable_handoff with handoff_on_shutdown; one column for every --executor

Store:
  The default is DurableHandoff.Store in a temporary directory, removed at the end. --latency-ms, --slots and
  --error-rate choose the simulated store. At a URL each column writes to its own folder, which stays; credentials
  come from the environment. memory: is refused: it is the memory of one process, and there are several nodes.

Examples:
  integration/demo --quick
  integration/demo --scenario drain --nodes 3 --servers 500 --latency-ms 10
  integration/demo --scenario together --nodes 4 --draining 2 --servers 500 --slots 8 --modes naive,handoff --executor embedded,node
  integration/demo --scenario rolling --nodes 4 --servers 400 --modes naive,handoff --client plain,handoff
  integration/demo --scenario drain --slots 8 --modes naive,handoff
  integration/demo --deploy in-place --rebalance --nodes 4 --servers 400 --modes handoff --client handoff
  integration/demo --scenario scale-out --nodes 4 --joining 2 --servers 400 --modes handoff --client handoff
  integration/demo --deploy in-place --nodes 4 --servers 400 --json figures.json --html figures.html";

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(
    name = "integration/demo",
    bin_name = "integration/demo",
    about = "Replaces BEAM nodes under client load and measures what happens to their durable servers",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    args_override_self = true
)]
pub struct Args {
    /// Application nodes, 2 to 32 [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=32))]
    pub nodes: Option<u32>,
    /// Durable servers: rolling spreads them evenly over the nodes, drain puts all on the first, together
    /// puts as many on each node that stops [default: 300; 120 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub servers: Option<u32>,
    /// Client processes; each calls a random server every 10 ms [default: 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: Option<u32>,
    /// How clients call servers; several: one column each
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CLIENT,...", default_value = "plain")]
    pub client: Vec<Client>,
    /// Drain one node, replace every node in turn, drain several at the same moment, or add nodes
    #[arg(long, value_enum, default_value_t = Scenario::Rolling)]
    pub scenario: Scenario,
    /// Start each fresh node before the old one is told to stop, or after it is gone; rolling only [default:
    /// surge]
    #[arg(long, value_enum)]
    pub deploy: Option<Deploy>,
    /// Nodes that stop at the same moment; together only [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=31))]
    pub draining: Option<u32>,
    /// Nodes that join; scale-out only [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub joining: Option<u32>,
    /// After the deploy, in handoff mode, nodes move what they have above their share, and the run continues
    /// until shares are even; rolling and scale-out only (scale-out: always)
    #[arg(long)]
    pub rebalance: bool,
    /// What to compare, in this order
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE,...", default_value = "graceful,naive,handoff")]
    pub modes: Vec<Mode>,
    /// What decides in handoff mode; several: one column each
    #[arg(long, value_enum, value_delimiter = ',', value_name = "EXECUTOR,...", default_value = "embedded")]
    pub executor: Vec<Executor>,
    /// Adds a column in which the Rust node is killed when this part of the servers has moved, 0 to 1; needs
    /// --executor node
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    pub kill_node_at: Option<f64>,
    /// Servers moved at the same time: the task stream's in naive mode, the ceiling in handoff mode
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_concurrency: u32,
    /// In handoff mode, search for the best concurrency for the store, or always use --max-concurrency
    #[arg(long, value_enum, default_value_t = Concurrency::Adaptive)]
    pub concurrency: Concurrency,
    /// Where states are kept: simulated, file:///DIR, s3://BUCKET/PATH, gs://..., az://... [default: a
    /// temporary directory]
    #[arg(long, value_name = "STORE", value_parser = store::parse)]
    pub store: Option<String>,
    /// Simulated store: the time of one request in ms [default: 10]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub latency_ms: Option<u32>,
    /// Simulated store: requests that it serves at the same time; others are queued [default: unlimited]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slots: Option<u32>,
    /// Simulated store: the part of its requests that fail, 0 to 1 [default: 0]
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    pub error_rate: Option<f64>,
    /// Commands that start nodes instead of `elixir`, each with its own code path; several take turns, and a
    /// rolling deploy goes from the first to the last
    #[arg(long, value_delimiter = ',', value_name = "COMMAND,...")]
    pub beams: Vec<String>,
    /// Exit with 1 when an increment was lost or counted twice, a server ran twice or did not answer at the
    /// end, an executor other than the requested one decided, or a node in handoff mode stopped without a drain,
    /// did not stop, or moved less than half of its servers
    #[arg(long)]
    pub check: bool,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE", value_parser = writable)]
    pub json: Option<PathBuf>,
    /// Write the page with table and plot [default: integration/results/demo.html]
    #[arg(long, value_name = "FILE", value_parser = writable)]
    pub html: Option<PathBuf>,
    /// Write the plot alone, with a legend, as SVG
    #[arg(long, value_name = "FILE", value_parser = writable)]
    pub svg: Option<PathBuf>,
    /// Takes about a minute: fewer servers, a shorter warm-up, heartbeats every second instead of every 10 s,
    /// and discovery every 10 s instead of every 60 s, which makes graceful look better
    #[arg(long)]
    pub quick: bool,
}

impl Args {
    /// The command line of this process. Wrong flags print an explanation and end the process.
    pub fn from_command_line() -> (Self, Settings) {
        let args = Self::parse();
        match args.settings() {
            Ok(settings) => (args, settings),
            Err(error) => error.exit(),
        }
    }

    /// The settings that the flags stand for, or the flags that contradict each other.
    pub fn settings(&self) -> Result<Settings, clap::Error> {
        let conflict = |reason: String| Err(Self::command().error(ErrorKind::ArgumentConflict, reason));
        let refuse = |reason: String| Err(Self::command().error(ErrorKind::ValueValidation, reason));
        let store = match Store::from_flags(self.store.as_deref(), self.latency_ms, self.slots, self.error_rate) {
            Ok(store) => store,
            Err(reason) => return conflict(reason),
        };
        let settings = self.settings_on(store);

        if self.deploy.is_some() && self.scenario != Scenario::Rolling {
            return conflict(format!(
                "--deploy says how a rolling deploy brings fresh nodes; --scenario {} starts none",
                self.scenario
            ));
        }
        if self.draining.is_some() && self.scenario != Scenario::Together {
            return conflict(format!("--draining goes with --scenario together, not with {}", self.scenario));
        }
        if self.joining.is_some() && self.scenario != Scenario::ScaleOut {
            return conflict(format!("--joining goes with --scenario scale-out, not with {}", self.scenario));
        }
        if self.rebalance && !matches!(self.scenario, Scenario::Rolling | Scenario::ScaleOut) {
            return conflict(format!("--rebalance has nothing to balance after --scenario {}", self.scenario));
        }
        if let Some(draining) = settings.draining.filter(|&draining| draining >= settings.nodes) {
            return refuse(format!("--draining {draining} leaves none of {} nodes to move to", settings.nodes));
        }
        if settings.servers > MAX_SERVERS {
            return refuse(format!("{} servers in all are more than {MAX_SERVERS}", settings.servers));
        }
        if self.kill_node_at.is_some() && !settings.modes.iter().any(|variant| variant.killed) {
            return conflict("--kill-node-at needs --executor node and --modes handoff".to_owned());
        }
        let lists = [
            twice("--modes", &self.modes),
            twice("--executor", &self.executor),
            twice("--client", &self.client),
            twice("--beams", &self.beams),
        ];
        if let Some(reason) = lists.into_iter().flatten().next() {
            return refuse(reason);
        }
        if matches!(self.scenario, Scenario::Rolling | Scenario::ScaleOut) && settings.servers < settings.nodes {
            return refuse(format!(
                "--servers {} is less than --nodes {}: some nodes would have nothing to lose",
                settings.servers, settings.nodes
            ));
        }
        let files = [("--json", &self.json), ("--html", &self.html), ("--svg", &self.svg)];
        for (at, (flag, file)) in files.iter().enumerate() {
            if let Some((other, _)) = files[..at].iter().find(|(_, other)| file.is_some() && other == file) {
                return refuse(format!("{other} and {flag} name the same file; one would overwrite the other"));
            }
        }
        Ok(settings)
    }

    /// The settings that the flags stand for on this store. Contradictions are not checked: see
    /// [`Args::settings`].
    pub fn settings_on(&self, store: Store) -> Settings {
        let quick = self.quick;
        let or = |given: Option<u32>, usual, short| given.unwrap_or(if quick { short } else { usual });
        let draining = (self.scenario == Scenario::Together).then(|| self.draining.unwrap_or(2));
        Settings {
            releases: Releases::new(&self.beams),
            scenario: self.scenario,
            deploy: (self.scenario == Scenario::Rolling).then(|| self.deploy.unwrap_or(Deploy::Surge)),
            nodes: or(self.nodes, 3, 3),
            draining,
            joining: (self.scenario == Scenario::ScaleOut).then(|| self.joining.unwrap_or(2)),
            rebalance: self.rebalance || self.scenario == Scenario::ScaleOut,
            servers: or(self.servers, 300, 120).saturating_mul(draining.unwrap_or(1)),
            clients: or(self.clients, 20, 20),
            modes: Variant::all(&self.modes, &self.executor, self.kill_node_at.is_some(), &self.client),
            kill_node_at: self.kill_node_at,
            max_concurrency: self.max_concurrency,
            concurrency: self.concurrency,
            timeout_ms: 30_000,
            attempt_timeout_ms: 15_000,
            store,
            state_bytes: None,
            start_ms: 0,
            synced: Synced::None,
            sync_one_in: 0,
            heartbeat_max_age_ms: None,
            slow_child_ms: 0,
            clock_ahead: None,
            lacks_module: None,
            partitions: false,
            start_leftovers: true,
            second_drain: false,
            call_every_ms: 10,
            call_kind: CallKind::Change,
            quick,
            discovery_interval_ms: or(None, 60_000, 10_000),
            heartbeat_interval_ms: or(None, 10_000, 1_000),
            warm_up_ms: or(None, 2_000, 500),
            recovery_bound_s: 300,
        }
    }
}

const MAX_SERVERS: u32 = 100_000;

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
    fn the_command_line_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_run_without_flags_rolls_three_nodes_in_all_modes() {
        let settings = parse(&[]).unwrap();
        assert_eq!((settings.nodes, settings.servers, settings.clients), (3, 300, 20));
        assert_eq!((settings.scenario, settings.deploy), (Scenario::Rolling, Some(Deploy::Surge)));
        assert_eq!(settings.modes, [Mode::Graceful, Mode::Naive, Mode::Handoff].map(Into::into));
        assert_eq!((settings.max_concurrency, settings.concurrency), (50, Concurrency::Adaptive));
        assert_eq!(settings.store, Store::Directory);
        assert_eq!(settings.discovery_interval_ms, 60_000);
    }

    #[test]
    fn quick_shortens_the_run_but_explicit_flags_take_precedence() {
        let settings = parse(&["--quick"]).unwrap();
        assert_eq!((settings.servers, settings.discovery_interval_ms), (120, 10_000));
        assert_eq!(parse(&["--quick", "--servers", "500"]).unwrap().servers, 500);
    }

    #[test]
    fn modes_run_in_the_given_order() {
        assert_eq!(
            parse(&["--modes", "handoff,graceful"]).unwrap().modes,
            [Mode::Handoff, Mode::Graceful].map(Into::into)
        );
    }

    #[test]
    fn scenario_together_puts_all_servers_on_each_draining_node() {
        let settings = parse(&["--scenario", "together", "--nodes", "4", "--servers", "500"]).unwrap();
        assert_eq!((settings.draining, settings.servers, settings.full_nodes()), (Some(2), 1_000, 2));
    }

    #[test]
    fn scenario_scale_out_adds_two_nodes_and_rebalances() {
        let settings = parse(&["--scenario", "scale-out", "--nodes", "4"]).unwrap();
        assert_eq!((settings.joining, settings.rebalance, settings.full_nodes()), (Some(2), true, 4));
        assert!(!parse(&[]).unwrap().rebalance);
        assert!(parse(&["--rebalance", "--deploy", "in-place"]).unwrap().rebalance);
    }

    #[test]
    fn a_later_flag_replaces_an_earlier_one() {
        assert_eq!(parse(&["--nodes", "4", "--nodes", "5"]).unwrap().nodes, 5);
    }

    #[test]
    fn values_out_of_range_are_refused_with_flag_and_range() {
        for (flags, expected) in [
            (["--nodes", "1"], "2..=32"),
            (["--servers", "0"], "1..=100000"),
            (["--clients", "0"], "1..=1000"),
            (["--max-concurrency", "0"], "1..=10000"),
            (["--latency-ms", "20000"], "0..=10000"),
            (["--slots", "0"], "1..=10000"),
            (["--slots", "many"], "invalid digit"),
            (["--error-rate", "2"], "from 0 to 1"),
            (["--store", "memory:"], "one operating-system process"),
            (["--store", "ftp://x"], "s3://BUCKET"),
            (["--executor", "both"], "embedded"),
            (["--client", "none"], "handoff"),
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
    fn contradicting_flags_are_refused_with_the_reason() {
        for (flags, expected) in [
            (&["--scenario", "drain", "--deploy", "surge"][..], "starts none"),
            (&["--modes", "naive,handoff,naive"], "names naive twice"),
            (&["--client", "plain,plain"], "names plain twice"),
            (&["--store", "file:///tmp/x", "--slots", "8"], "simulated"),
            (&["--scenario", "drain", "--draining", "2"], "--scenario together"),
            (&["--scenario", "together", "--nodes", "3", "--draining", "3"], "leaves none of 3"),
            (&["--scenario", "together", "--deploy", "surge"], "starts none"),
            (&["--kill-node-at", "0.3"], "--executor node"),
            (&["--joining", "2"], "--scenario scale-out"),
            (&["--scenario", "drain", "--rebalance"], "nothing to balance"),
            (&["--scenario", "scale-out", "--deploy", "surge"], "starts none"),
            (&["--servers", "3", "--nodes", "4"], "--servers 3 is less than --nodes 4"),
            (&["--json", "x", "--html", "x"], "same file"),
            (&["--html", "x", "--svg", "x"], "--html and --svg name the same file"),
        ] {
            let message = refusal(flags);
            assert!(message.contains(expected), "{flags:?} gave: {message}");
        }
    }
}
