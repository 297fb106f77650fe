//! `move`: moves one server to a named node or to the best one.
//!
//! Guarantee: the move runs on the nodes. When this command ends early, the move continues.

use std::fmt;

use clap::Args;
use handoff_wire::{Message, MoveDone, MoveRequest};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::agent::{Agent, NoAnswer, say, show};
use super::columns::duration_us;
use super::exit::Exit;
use super::run::{random_creation, start};
use crate::distribution::{Node, Seed};
use crate::settings::Settings;

/// What to move, and where.
#[derive(Debug, Clone, Args)]
pub struct MoveFlags {
    /// Any node of the cluster; it finds the node that runs the server
    #[arg(value_name = "NAME@HOST")]
    pub node: String,
    /// The server's key
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The target [default: the node that a drain would choose]
    #[arg(long, value_name = "NAME@HOST")]
    pub to: Option<String>,
    /// Its supervisor, by name [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub supervisor: Option<String>,
    /// The time for the move in milliseconds [default: that of an attempt, from the supervisor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub timeout_ms: Option<u64>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize)]
struct Moved {
    supervisor: String,
    key: String,
    from: String,
    to: String,
    gap_us: u64,
    attempts: u64,
}

/// Sends the request, waits, prints the answer.
pub async fn relocate(settings: Settings, flags: MoveFlags) -> anyhow::Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let Some(seed) = settings.connect.first().cloned() else { anyhow::bail!("no node to ask") };
    let node = start(&settings, random_creation())?;
    let answer = tokio::select! {
        answer = converse(&node, &seed, &flags) => Some(answer),
        _ = interrupt.recv() => None,
    };
    node.stop();
    match answer {
        None => {
            say("the move goes on");
            Ok(Exit::Interrupted)
        }
        Some(Err(why)) => Ok(why.say(&seed.name, "; the move may go on")),
        Some(Ok((supervisor, MoveDone { from, to, gap_us, attempts, .. }))) => {
            show(flags.json, &Moved { supervisor, key: flags.key, from, to, gap_us, attempts })?;
            Ok(Exit::Done)
        }
    }
}

async fn converse(node: &Node, seed: &Seed, flags: &MoveFlags) -> Result<(String, MoveDone), NoAnswer> {
    let mut agent = Agent::reach(node, seed).await?;
    agent.expect("move").await?;
    let supervisor = agent.supervisor(flags.supervisor.as_deref()).await?;
    agent.wait_for(flags.timeout_ms);
    agent.ask(|request, from| MoveRequest {
        request,
        from,
        supervisor: supervisor.clone(),
        key: flags.key.clone(),
        to: flags.to.clone(),
        timeout_ms: flags.timeout_ms,
    })?;
    let done = agent.next(|request, message| match message {
        Message::MoveDone(done) if done.request == request => Some(done),
        _ => None,
    });
    Ok((supervisor, done.await?))
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moved { supervisor, key, from, to, gap_us, attempts } = self;
        let gap = duration_us(*gap_us);
        let attempts = if *attempts == 1 { String::new() } else { format!(", {attempts} attempts") };
        writeln!(f, "{key} of {supervisor}: {from} to {to}, unavailable for at most {gap}{attempts}")
    }
}
