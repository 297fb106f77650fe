//! `rebalance`: has every node move the servers that it has above its share.
//!
//! Guarantee: each node decides what to move, and continues when this command ends. The result lists every
//! node that has or may have the supervisor, with the number of servers moved or the reason why the node did not
//! answer.

mod choice;
mod result;

use std::collections::BTreeMap;

use clap::Args;
use handoff_core::Progress;
use handoff_core::config::MAX_TOLERANCE;
use handoff_wire::{Message, REBALANCE_AFTER_MS, REBALANCE_SETTINGS, RebalanceRequest};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::agent::{Agent, NoAnswer, say, show};
use super::drain::bar::Bar;
use super::exit::Exit;
use super::nodes::{say_errors, survey};
use super::run::{random_creation, start};
use crate::distribution::{Node, names};
use crate::settings::Settings;
use choice::{Asked, Need, choose};
use result::{Moves, OfNode, Rebalanced};

/// The largest number of queued progress messages of all nodes.
const STEPS: usize = 64;

/// What to rebalance, and how.
#[derive(Debug, Clone, Args)]
pub struct RebalanceFlags {
    /// The supervisor, by name [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub supervisor: Option<String>,
    /// The time for the rebalance in milliseconds [default: the supervisors']
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub timeout_ms: Option<u64>,
    /// Servers that arrived on their node within this time in milliseconds stay; 0: all may move [default: the supervisors']
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=86_400_000))]
    pub after_ms: Option<u64>,
    /// How much of its share a node may carry above it before it moves any server, such as 0.1 [default: the supervisors']
    #[arg(long, value_name = "N", value_parser = tolerance)]
    pub tolerance: Option<f64>,
    /// A node with fewer servers moves none [default: the supervisors']
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    pub min_servers: Option<u32>,
    /// How many servers begin to move in a second on each node [default: the supervisors']
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_per_second: Option<u32>,
    /// Only show how many servers would move where
    #[arg(long)]
    pub dry_run: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| *number > 0.0 && *number <= MAX_TOLERANCE);
    number.ok_or_else(|| format!("takes a number above 0 and at most {MAX_TOLERANCE}"))
}

impl RebalanceFlags {
    /// What a node has to know, because it would ignore these flags.
    fn needs(&self) -> Vec<Need> {
        let settings = self.tolerance.is_some() || self.min_servers.is_some() || self.max_per_second.is_some();
        let needs = [
            (settings, Need { feature: REBALANCE_SETTINGS, flags: "--tolerance, --min-servers and --max-per-second" }),
            (self.after_ms.is_some(), Need { feature: REBALANCE_AFTER_MS, flags: "--after-ms" }),
        ];
        needs.into_iter().filter_map(|(given, need)| given.then_some(need)).collect()
    }
}

/// Connects, asks every node, shows the progress, prints the result.
pub async fn rebalance(settings: Settings, flags: RebalanceFlags) -> anyhow::Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node = start(&settings, random_creation())?;
    let lines = survey(&node, &settings).await?;
    let (supervisor, asked) = match choose(&lines, flags.supervisor.as_deref(), &flags.needs()) {
        Ok(choice) => choice,
        Err((why, exit)) => {
            node.stop();
            say(&why);
            let errors = say_errors(&lines);
            return Ok(if exit == Exit::Settings { exit } else { exit.worse(errors) });
        }
    };
    let mut bar = Bar::new();
    let answers = tokio::select! {
        answers = ask_all(&node, &supervisor, &asked, &flags, &mut bar) => Some(answers),
        _ = interrupt.recv() => None,
    };
    bar.end();
    node.stop();
    let Some(answers) = answers else {
        say("the rebalance goes on at the nodes");
        return Ok(Exit::Interrupted);
    };
    let rebalanced = Rebalanced::new(supervisor, flags.dry_run, &asked, answers);
    show(flags.json, &rebalanced)?;
    Ok(rebalanced.exit())
}

/// Asks all nodes to rebalance. Returns the answers by node name.
async fn ask_all(
    node: &Node,
    supervisor: &str,
    asked: &[Asked],
    flags: &RebalanceFlags,
    bar: &mut Bar,
) -> BTreeMap<String, OfNode> {
    let mut answers: BTreeMap<String, OfNode> = BTreeMap::new();
    let mut working = JoinSet::new();
    let (steps, mut progress) = mpsc::channel(STEPS);
    for Asked { name, error, .. } in asked {
        if let Some(why) = error {
            answers.insert(name.clone(), Err(why.clone()));
            continue;
        }
        let (node, name, supervisor) = (node.clone(), name.clone(), supervisor.to_owned());
        let (flags, steps) = (flags.clone(), steps.clone());
        working.spawn(async move {
            let answer = ask_one(&node, &name, supervisor, &flags, &steps).await;
            (name, answer)
        });
    }
    drop(steps);
    let mut latest: BTreeMap<String, Progress> = BTreeMap::new();
    loop {
        tokio::select! {
            // The progress of a node arrives before its answer, so progress is shown first.
            biased;
            Some((name, step)) = progress.recv() => {
                latest.insert(name, step);
                bar.show(&sum(latest.values()));
            }
            ended = working.join_next() => match ended {
                Some(Ok((name, answer))) => {
                    answers.insert(name, answer);
                }
                // A task that failed has no answer. Its node is listed as lost.
                Some(Err(error)) => tracing::error!(%error, "asking a node failed"),
                None => return answers,
            },
        }
    }
}

async fn ask_one(
    node: &Node,
    name: &str,
    supervisor: String,
    flags: &RebalanceFlags,
    steps: &mpsc::Sender<(String, Progress)>,
) -> OfNode {
    let peer = names::parse(name).map_err(|error| NoAnswer::Unreachable(error.to_string()))?;
    let mut agent = Agent::of_peer(node, &peer)?;
    let RebalanceFlags { dry_run, timeout_ms, after_ms, tolerance, min_servers, max_per_second, .. } = *flags;
    agent.ask(|request, from| RebalanceRequest {
        request,
        from,
        supervisor,
        dry_run,
        timeout_ms,
        after_ms,
        tolerance,
        min_servers,
        max_per_second,
    })?;
    let answer = agent.next(|request, message| match message {
        Message::DrainStep(step) if step.request == request => {
            // Progress that finds the channel full is dropped: the next message replaces it.
            let _full = steps.try_send((name.to_owned(), step.progress));
            None
        }
        Message::Plan(done) if done.request == request => Some(Moves::of_plan(done.plan)),
        Message::DrainDone(done) if done.request == request => Some(Moves::of_report(done.report)),
        _ => None,
    });
    answer.await
}

/// The progress of all nodes. The total of a rebalance is its node's excess, not all of its servers.
fn sum<'a>(all: impl Iterator<Item = &'a Progress>) -> Progress {
    all.fold(Progress::default(), |sum, one| Progress {
        total: sum.total.saturating_add(one.excess),
        moved: sum.moved.saturating_add(one.moved),
        in_flight: sum.in_flight.saturating_add(one.in_flight),
        displaced: sum.displaced.saturating_add(one.displaced),
        failures: sum.failures.saturating_add(one.failures),
        limit: sum.limit.saturating_add(one.limit),
        ..sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_that_no_node_would_accept_is_refused_at_once() {
        for text in ["0", "-0.1", "10.1", "nan", "inf", "much"] {
            assert!(tolerance(text).is_err(), "{text}");
        }
        assert_eq!((tolerance("0.05"), tolerance("10")), (Ok(0.05), Ok(10.0)));
    }

    #[test]
    fn inconsistent_numbers_of_nodes_are_added_without_overflow() {
        let most = Progress {
            total: u64::MAX,
            moved: u64::MAX,
            in_flight: u64::MAX,
            displaced: u64::MAX,
            left: u64::MAX,
            failures: u64::MAX,
            limit: u32::MAX,
            excess: u64::MAX,
            ..Progress::default()
        };
        let sum = sum([most, most].iter());
        assert_eq!((sum.total, sum.moved, sum.limit), (u64::MAX, u64::MAX, u32::MAX));
        assert_eq!((sum.in_flight, sum.displaced, sum.failures), (u64::MAX, u64::MAX, u64::MAX));
        Bar::new().show(&sum);
    }
}
