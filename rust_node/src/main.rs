//! `durable-handoff-node`: see `--help`.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rust_node::commands;
use rust_node::commands::audit::AuditFlags;
use rust_node::commands::cordon::{CordonFlags, cordon};
use rust_node::commands::drain::DrainFlags;
use rust_node::commands::exit::Exit;
use rust_node::commands::rebalance::RebalanceFlags;
use rust_node::commands::relocate::MoveFlags;
use rust_node::commands::status::StatusFlags;
use rust_node::settings::{AskFlags, COOKIE_VARIABLE, Find, Flags, Given, LogFormat, Settings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Coordinates the drains of a BEAM cluster whose nodes use durable_handoff.
#[derive(Debug, Parser)]
#[command(name = "durable-handoff-node", version, after_help = Exit::help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join the cluster and coordinate its drains until SIGTERM; a second SIGTERM ends it at once
    #[command(after_help = Exit::help())]
    Run(Flags),
    /// Show what a running node coordinates, over its HTTP service
    #[command(after_help = Exit::help())]
    Status(StatusFlags),
    /// List the nodes of the cluster with release, age, servers, and whether they drain
    #[command(after_help = Exit::help())]
    Nodes(OnCluster),
    /// Check step by step whether nodes can be reached, and say what to do about each that cannot
    #[command(after_help = Exit::help())]
    Doctor(OnCluster),
    /// Have a node drain one of its supervisors, and show its progress. The drain continues on the node when
    /// this command ends. The node takes no servers afterwards, until it is uncordoned or restarted
    #[command(after_help = Exit::help())]
    Drain(OnNode<DrainFlags>),
    /// Cordon a node: it takes no more servers, and those it has stay
    #[command(after_help = Exit::help())]
    Cordon(OnNode<CordonFlags>),
    /// Let a cordoned node take servers again
    #[command(after_help = Exit::help())]
    Uncordon(OnNode<CordonFlags>),
    /// Move one server to another node
    #[command(after_help = Exit::help())]
    Move(OnNode<MoveFlags>),
    /// Have every node move the servers that it has above its share, and show the progress
    #[command(after_help = Exit::help())]
    Rebalance {
        #[command(flatten)]
        find: Find,
        #[command(flatten)]
        rebalance: RebalanceFlags,
        #[command(flatten)]
        flags: AskFlags,
    },
    /// Audit a store: servers by status and owner, old reservations, unreadable objects. Only reads
    #[command(after_help = Exit::help())]
    Audit(AuditFlags),
}

#[derive(Debug, Args)]
struct OnCluster {
    #[command(flatten)]
    find: Find,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: AskFlags,
}

#[derive(Debug, Args)]
struct OnNode<T: Args> {
    #[command(flatten)]
    what: T,
    #[command(flatten)]
    flags: AskFlags,
}

impl<T: Args> OnNode<T> {
    fn run<F>(self, node: impl FnOnce(&T) -> &str, work: impl FnOnce(Settings, T) -> F) -> Exit
    where
        F: Future<Output = anyhow::Result<Exit>>,
    {
        let given = self.flags.of_node(node(&self.what));
        with_settings(given, "warn", |settings| work(settings, self.what))
    }
}

fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Run(flags) => with_settings(flags, "info", commands::run::run),
        Command::Status(flags) => block_on(commands::status::status(flags)),
        Command::Nodes(OnCluster { find, json, flags }) => {
            with_settings(flags.of_cluster(find), "warn", |settings| commands::nodes::nodes(settings, json))
        }
        Command::Doctor(OnCluster { find, json, flags }) => {
            with_settings(flags.of_cluster(find), "error", |settings| commands::doctor::doctor(settings, json))
        }
        Command::Drain(asked) => asked.run(|flags| &flags.node, commands::drain::drain),
        Command::Cordon(asked) => asked.run(|flags| &flags.node, |settings, flags| cordon(settings, flags, true)),
        Command::Uncordon(asked) => asked.run(|flags| &flags.node, |settings, flags| cordon(settings, flags, false)),
        Command::Move(asked) => asked.run(|flags| &flags.node, commands::relocate::relocate),
        Command::Rebalance { find, rebalance, flags } => {
            let given = flags.of_cluster(find);
            with_settings(given, "warn", |settings| commands::rebalance::rebalance(settings, rebalance))
        }
        Command::Audit(flags) => block_on(commands::audit::run(flags)),
    };
    exit.into()
}

fn with_settings<F>(given: impl Into<Given>, log_level: &str, work: impl FnOnce(Settings) -> F) -> Exit
where
    F: Future<Output = anyhow::Result<Exit>>,
{
    match Settings::load(given, std::env::var(COOKIE_VARIABLE).ok()) {
        Ok(settings) => {
            log(&settings, log_level);
            block_on(work(settings))
        }
        Err(problems) => {
            problems.iter().for_each(|problem| say(problem));
            Exit::Settings
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<Exit>>) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let worked = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let worked = runtime.block_on(work);
        // Dropping the runtime would wait for a DNS look-up that hangs.
        runtime.shutdown_background();
        worked
    });
    worked.unwrap_or_else(|error| {
        say(&causes(&error));
        Exit::Failed
    })
}

/// The error and its causes. A cause that the text already contains is not repeated.
fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

fn log(settings: &Settings, log_level: &str) {
    let filter: Targets = settings.log_level.as_deref().unwrap_or(log_level).parse().unwrap_or_default();
    let layer = match settings.log_format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
        LogFormat::Json => fmt::layer().with_writer(std::io::stderr).json().boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

fn say(text: &str) {
    // Standard error may be closed.
    let _closed = writeln!(std::io::stderr(), "durable-handoff-node: {text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_consistent_and_help_lists_the_exit_codes_of_every_command() {
        let mut cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands_mut() {
            assert!(command.render_help().to_string().contains("130  interrupted"), "{}", command.get_name());
        }
    }

    #[test]
    fn a_cause_that_the_text_contains_is_not_repeated() {
        let error = anyhow::anyhow!("refused").context("EPMD: refused").context("cannot start");
        assert_eq!(causes(&error), "cannot start: EPMD: refused");
    }
}
