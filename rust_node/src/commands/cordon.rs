//! `cordon` and `uncordon`: whether a node accepts servers.
//!
//! Guarantee: the output is the answer of the node. Without an answer, the exit code says why.

use std::fmt;

use clap::Args;
use handoff_wire::{CordonRequest, Message};
use serde::Serialize;

use super::agent::{Agent, NoAnswer, show};
use super::exit::Exit;
use super::run::{random_creation, start};
use crate::distribution::{Node, Seed};
use crate::settings::Settings;

#[derive(Debug, Clone, Args)]
pub struct CordonFlags {
    /// The node
    #[arg(value_name = "NAME@HOST")]
    pub node: String,
    /// One of its supervisors, by name [default: all of them]
    #[arg(long, value_name = "NAME")]
    pub supervisor: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize)]
struct Cordoned {
    node: String,
    cordoned: bool,
    supervisors: Vec<String>,
}

/// Sends the request and prints the answer.
pub async fn cordon(settings: Settings, flags: CordonFlags, cordon: bool) -> anyhow::Result<Exit> {
    let Some(seed) = settings.connect.first().cloned() else { anyhow::bail!("no node to cordon") };
    let node = start(&settings, random_creation())?;
    let answer = converse(&node, &seed, flags.supervisor, cordon).await;
    node.stop();
    match answer {
        Err(why) => Ok(why.say(&seed.name, "; it may have been done")),
        Ok(supervisors) => {
            show(flags.json, &Cordoned { node: seed.name.to_string(), cordoned: cordon, supervisors })?;
            Ok(Exit::Done)
        }
    }
}

async fn converse(node: &Node, seed: &Seed, supervisor: Option<String>, cordon: bool) -> Result<Vec<String>, NoAnswer> {
    let mut agent = Agent::reach(node, seed).await?;
    agent.expect(if cordon { "cordon" } else { "uncordon" }).await?;
    agent.ask(|request, from| CordonRequest { request, from, supervisor, cordon })?;
    let done = agent.next(|request, message| match message {
        Message::CordonDone(done) if done.request == request => Some(done.supervisors),
        _ => None,
    });
    done.await
}

impl fmt::Display for Cordoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.cordoned { "cordoned" } else { "takes servers again" };
        self.supervisors.iter().try_for_each(|supervisor| writeln!(f, "{supervisor} on {}: {state}", self.node))
    }
}
