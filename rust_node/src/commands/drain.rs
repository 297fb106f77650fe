//! `drain`: has a node drain one of its supervisors, shows the progress, and prints the report.
//!
//! Guarantee: the drain runs on the node. When this command is interrupted, killed or disconnected, the drain
//! continues. The command ends with the report or with an error of [`Agent`].

pub(super) mod bar;
mod plan;
mod report;

use clap::Args;
use handoff_wire::{DrainRequest, Message, PlanSummary};
use tokio::signal::unix::{SignalKind, signal};

use super::agent::{Agent, NoAnswer, say, show};
use super::exit::Exit;
use super::run::{random_creation, start};
use crate::distribution::{Node, Seed};
use crate::settings::Settings;
use bar::Bar;
use plan::Plan;
use report::Summary;

/// The flags of `drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainFlags {
    /// The node to drain
    #[arg(value_name = "NAME@HOST")]
    pub node: String,
    /// Its supervisor, by name [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub supervisor: Option<String>,
    /// The time for the drain in milliseconds [default: the supervisor's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub timeout_ms: Option<u64>,
    /// Only show which servers would move where, and which would stay and why
    #[arg(long)]
    pub dry_run: bool,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The node and the supervisor of a drain or a plan.
struct Subject {
    node: String,
    supervisor: String,
}

#[cfg(test)]
impl Subject {
    fn for_tests() -> Self {
        Subject { node: "a@h".into(), supervisor: "MyApp.Durable".into() }
    }
}

enum Answer {
    Report(handoff_core::Report),
    Plan(PlanSummary),
}

/// Sends the request, shows the progress, prints the report.
pub async fn drain(settings: Settings, flags: DrainFlags) -> anyhow::Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let Some(seed) = settings.connect.first().cloned() else { anyhow::bail!("no node to drain") };
    let name = &seed.name;
    let node = start(&settings, random_creation())?;
    let mut bar = Bar::new();
    let ending = tokio::select! {
        ending = converse(&node, &seed, &flags, &mut bar) => Some(ending),
        _ = interrupt.recv() => None,
    };
    bar.end();
    // Messages that are still queued, such as the removal of a monitor, need not be sent.
    node.stop();
    match ending {
        None => {
            say(&format!("the drain goes on at {name}"));
            Ok(Exit::Interrupted)
        }
        Some(Err(why)) => Ok(why.say(name, "; the drain may go on there")),
        Some(Ok((subject, Answer::Report(report)))) => {
            let summary = Summary::new(subject, report);
            show(flags.json, &summary)?;
            Ok(if summary.is_complete() { Exit::Done } else { Exit::Left })
        }
        Some(Ok((subject, Answer::Plan(plan)))) => {
            let plan = Plan::new(subject, plan);
            show(flags.json, &plan)?;
            Ok(if plan.is_complete() { Exit::Done } else { Exit::Left })
        }
    }
}

async fn converse(node: &Node, seed: &Seed, flags: &DrainFlags, bar: &mut Bar) -> Result<(Subject, Answer), NoAnswer> {
    let mut agent = Agent::reach(node, seed).await?;
    let supervisor = agent.supervisor(flags.supervisor.as_deref()).await?;
    agent.ask(|request, from| DrainRequest {
        request,
        from,
        supervisor: supervisor.clone(),
        timeout_ms: flags.timeout_ms,
        dry_run: flags.dry_run,
        plan: flags.dry_run,
    })?;
    let answer = agent.next(|request, message| match message {
        Message::DrainStep(step) if step.request == request => {
            bar.show(&step.progress);
            None
        }
        Message::Plan(done) if done.request == request => Some(Answer::Plan(done.plan)),
        Message::DrainDone(done) if done.request == request && flags.dry_run => {
            Some(Answer::Plan(plan_of_earlier_release(done.report)))
        }
        Message::DrainDone(done) if done.request == request => Some(Answer::Report(done.report)),
        _ => None,
    });
    let answer = answer.await?;
    Ok((Subject { node: seed.name.to_string(), supervisor }, answer))
}

/// A node of an earlier release answers a dry run with the report of a drain.
fn plan_of_earlier_release(report: handoff_core::Report) -> PlanSummary {
    PlanSummary {
        total: report.total,
        moves: report.moved,
        left: report.left,
        targets: report.targets,
        estimate_us: Some(report.duration.0).filter(|us| *us > 0),
        ..PlanSummary::default()
    }
}
