//! `drain`: have a node drain one of its supervisors, watch it, and show its report.
//!
//! Guarantee: the drain belongs to the node. Whatever becomes of this command (interrupted, killed,
//! disconnected), the drain goes on there; and the command ends: with the report, a refusal, the end of the
//! connection, or after [`SILENCE`] without a word.

mod bar;
mod plan;
mod report;

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use handoff_wire::{AGENT_PROCESS, DrainRequest, Message, PlanSummary, RequestId};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::exit::Exit;
use super::run::{random_creation, start};
use crate::distribution::dialler::dial;
use crate::distribution::{Inbound, Mailbox, Node, NodeName, Process};
use crate::settings::Settings;
use bar::Bar;
use plan::Plan;
use report::Summary;

/// Steps come twice a second once the drain runs. Before that the node marks itself and looks at its servers,
/// which takes calls to the store; so does a dry run.
const SILENCE: Duration = Duration::from_secs(60);

/// What to drain, and how.
#[derive(Debug, Clone, Args)]
pub struct DrainFlags {
    /// The node to drain
    #[arg(value_name = "NAME@HOST")]
    pub node: String,
    /// Its supervisor, as the node names it
    #[arg(long, value_name = "NAME")]
    pub supervisor: String,
    /// Instead of the time the supervisor is configured with
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub timeout_ms: Option<u64>,
    /// Only say who would go where, and who would not and why
    #[arg(long)]
    pub dry_run: bool,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
impl DrainFlags {
    fn for_tests(dry_run: bool) -> Self {
        DrainFlags { node: "a@h".into(), supervisor: "MyApp.Durable".into(), timeout_ms: None, dry_run, json: false }
    }
}

/// How the conversation with the agent ended.
enum Ending {
    Report(handoff_core::Report),
    Plan(PlanSummary),
    Refused(String),
    Lost(String),
    Interrupted,
}

/// Asks, watches, prints.
///
/// # Errors
/// What kept it from starting or printing.
pub async fn drain(settings: Settings, flags: DrainFlags) -> anyhow::Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let Some(name) = settings.connect.first().cloned() else { anyhow::bail!("no node to drain") };
    let node = start(&settings, random_creation())?;
    let mut bar = Bar::new();
    let ending = tokio::select! {
        ending = converse(&node, &name, &flags, &mut bar) => ending?,
        _ = interrupt.recv() => Ok(Ending::Interrupted),
    };
    bar.end();
    // What is queued, such as taking the monitor back, is of no use to anybody any more.
    node.stop();
    match ending {
        Err(unreachable) => say(&unreachable, Exit::Unreachable),
        Ok(Ending::Refused(why)) => say(&format!("{name} refuses: {why}"), Exit::Refused),
        Ok(Ending::Lost(why)) => say(&format!("{name}: {why}; the drain may go on there"), Exit::Lost),
        Ok(Ending::Interrupted) => say(&format!("the drain goes on at {name}"), Exit::Interrupted),
        Ok(Ending::Report(report)) => {
            let summary = Summary::new(&flags, report);
            show(&flags, &summary, summary.is_complete())
        }
        Ok(Ending::Plan(plan)) => {
            let plan = Plan::new(&flags, plan);
            show(&flags, &plan, plan.is_complete())
        }
    }
}

fn show(flags: &DrainFlags, what: &(impl Serialize + Display), complete: bool) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    if flags.json {
        serde_json::to_writer_pretty(&mut out, what)?;
        writeln!(out)?;
    } else {
        out.write_all(what.to_string().as_bytes())?;
    }
    Ok(if complete { Exit::Done } else { Exit::Left })
}

/// From dialling to the end; `Err`: it was not reached.
async fn converse(
    node: &Node,
    name: &NodeName,
    flags: &DrainFlags,
    bar: &mut Bar,
) -> anyhow::Result<Result<Ending, String>> {
    if let Err(error) = dial(node, name).await {
        return Ok(Err(format!("{name} cannot be reached: {error}")));
    }
    let Some(mut mailbox) = node.register("durable_handoff_operator") else { anyhow::bail!("a name is taken") };
    let agent = Process::Name(AGENT_PROCESS.to_owned());
    // The monitor first: without an agent its `noproc` is the answer.
    let _monitor = node.monitor(&mailbox, &name.to_string(), agent.clone());
    let request = RequestId(rand::random::<u32>().into());
    let question = DrainRequest {
        request,
        from: mailbox.pid.clone(),
        supervisor: flags.supervisor.clone(),
        timeout_ms: flags.timeout_ms,
        dry_run: flags.dry_run,
        plan: flags.dry_run,
    };
    if let Err(error) = node.send(&name.to_string(), &mailbox.pid, &agent, Message::from(question).to_term()) {
        return Ok(Err(format!("{name} cannot be reached: {error}")));
    }
    Ok(Ok(listen(&mut mailbox, request, flags.dry_run, bar).await))
}

async fn listen(mailbox: &mut Mailbox, request: RequestId, dry_run: bool, bar: &mut Bar) -> Ending {
    let mut heard = false;
    loop {
        let inbound = match timeout(SILENCE, mailbox.receive()).await {
            Err(_) => return Ending::Lost(format!("nothing was heard for {} s", SILENCE.as_secs())),
            Ok(None) => return Ending::Lost("stopped here".to_owned()),
            Ok(Some(inbound)) => inbound,
        };
        match inbound {
            Inbound::PeerUp { .. } => {}
            Inbound::PeerDown { .. } => return Ending::Lost("the connection has ended".to_owned()),
            Inbound::Down { reason, .. } => {
                let reason = reason.unwrap_or_else(|| "unknown".to_owned());
                return match &*reason {
                    "noproc" if !heard => Ending::Refused("durable_handoff does not run there".to_owned()),
                    "noconnection" => Ending::Lost("the connection has ended".to_owned()),
                    _ => Ending::Lost(format!("its agent has ended ({reason})")),
                };
            }
            Inbound::Message(delivery) => match Message::from_checked(&delivery.payload) {
                Ok(Message::DrainStep(step)) if step.request == request => {
                    heard = true;
                    bar.show(&step.progress);
                }
                Ok(Message::Plan(done)) if done.request == request => return Ending::Plan(done.plan),
                Ok(Message::DrainDone(done)) if done.request == request && dry_run => {
                    return Ending::Plan(plan_of_earlier_release(done.report));
                }
                Ok(Message::DrainDone(done)) if done.request == request => return Ending::Report(done.report),
                Ok(Message::Refuse(refuse)) if refuse.id.is_none_or(|id| id.0 == request.0) => {
                    return Ending::Refused(refuse.reason.to_string());
                }
                Ok(other) => tracing::debug!(kind = other.kind(), "not for this command"),
                Err(error) => tracing::warn!(%error, "an answer that is not understood"),
            },
        }
    }
}

/// A node whose release has no plan message answers a dry run with a drain's report.
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

fn say(text: &str, exit: Exit) -> anyhow::Result<Exit> {
    // Standard error may be closed; then there is nothing left to do.
    let _closed = writeln!(std::io::stderr(), "durable-handoff-node: {text}");
    Ok(exit)
}
