//! The exchange of one command with the agent of one node.
//!
//! Guarantee: every wait ends with an answer, a refusal, the end of the agent, the end of the connection, or
//! after [`SILENCE`] without a message.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use handoff_wire::{AGENT_PROCESS, Describe, Description, Message, RequestId};
use serde::{Serialize, Serializer};
use tokio::time::timeout;

use super::exit::Exit;
use crate::distribution::dial::{DialError, dial};
use crate::distribution::{Inbound, Mailbox, Node, NodeName, Process, Seed};

/// A node that drains, rebalances or moves a server sends its progress twice a second. Before that, and in a dry run, the
/// node lists its servers, which may take requests to the store.
const SILENCE: Duration = Duration::from_secs(60);

/// How much longer a command waits than the timeout that it gave the node. After it, a node may take 15 seconds to start a
/// server again that did not move.
const LATE: Duration = Duration::from_secs(20);

pub(super) struct Agent<'a> {
    node: &'a Node,
    name: &'a NodeName,
    mailbox: Mailbox,
    request: RequestId,
    answered: bool,
    /// How long to wait for the next message.
    silence: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    Unreachable(String),
    Refused(String),
    /// The agent or the connection ended.
    Lost(String),
    /// A flag is missing or wrong.
    Incomplete(String),
}

impl NoAnswer {
    pub(super) fn text(&self) -> &str {
        match self {
            NoAnswer::Unreachable(why) | NoAnswer::Refused(why) | NoAnswer::Lost(why) | NoAnswer::Incomplete(why) => {
                why
            }
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            NoAnswer::Unreachable(_) => Exit::Unreachable,
            NoAnswer::Refused(_) => Exit::Refused,
            NoAnswer::Lost(_) => Exit::Lost,
            NoAnswer::Incomplete(_) => Exit::Settings,
        }
    }

    /// Prints the reason on standard error, followed by `at_work` if the operation may still be running.
    pub(super) fn say(&self, name: &NodeName, at_work: &str) -> Exit {
        say(&match self {
            NoAnswer::Unreachable(why) => format!("{name} cannot be reached: {why}"),
            NoAnswer::Refused(why) => format!("{name} refuses: {why}"),
            NoAnswer::Lost(why) => format!("{name}: {why}{at_work}"),
            NoAnswer::Incomplete(why) => why.clone(),
        });
        self.exit()
    }
}

/// As its text.
impl Serialize for NoAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl<'a> Agent<'a> {
    pub(super) async fn reach(node: &'a Node, seed: &'a Seed) -> Result<Agent<'a>, NoAnswer> {
        dial(node, seed).await.map_err(|error| unreachable(why(&error)))?;
        Agent::of_peer(node, &seed.name)
    }

    /// The agent of a node that is connected already.
    pub(super) fn of_peer(node: &'a Node, name: &'a NodeName) -> Result<Agent<'a>, NoAnswer> {
        let mailbox = node.register(&format!("durable_handoff_operator_{name}"));
        let mailbox = mailbox.ok_or_else(|| unreachable("this command talks to it already"))?;
        // The monitor is set before any request, so that a node without an agent answers with `noproc`.
        let _monitor = node.monitor(&mailbox, &name.to_string(), agent_process());
        Ok(Agent {
            node,
            name,
            mailbox,
            request: RequestId(rand::random::<u32>().into()),
            answered: false,
            silence: SILENCE,
        })
    }

    /// Allows the next message to take as long as the request's own timeout: earlier releases send no progress of a move.
    pub(super) fn wait_for(&mut self, timeout_ms: Option<u64>) {
        self.silence = SILENCE.max(Duration::from_millis(timeout_ms.unwrap_or(0)) + LATE);
    }

    /// Sends the request that `question` builds from the request's number and this command's process.
    pub(super) fn ask<M: Into<Message>>(
        &mut self,
        question: impl FnOnce(RequestId, etf::Pid) -> M,
    ) -> Result<(), NoAnswer> {
        self.request.0 += 1;
        let message = question(self.request, self.mailbox.pid.clone()).into().to_term();
        let sent = self.node.send(&self.name.to_string(), &self.mailbox.pid, &agent_process(), message);
        sent.map_err(unreachable)
    }

    /// Waits for the next message that `take` accepts. `take` gets the number of the last request.
    pub(super) async fn next<T>(
        &mut self,
        mut take: impl FnMut(RequestId, Message) -> Option<T>,
    ) -> Result<T, NoAnswer> {
        loop {
            let message = self.receive().await?;
            let kind = message.kind();
            match take(self.request, message) {
                Some(answer) => return Ok(answer),
                None => tracing::debug!(kind, "not for this command"),
            }
        }
    }

    async fn receive(&mut self) -> Result<Message, NoAnswer> {
        loop {
            let inbound = match timeout(self.silence, self.mailbox.receive()).await {
                Err(_) => return Err(NoAnswer::Lost(format!("no message for {} s", self.silence.as_secs()))),
                Ok(None) => return Err(NoAnswer::Lost("stopped here".to_owned())),
                Ok(Some(inbound)) => inbound,
            };
            match inbound {
                Inbound::PeerUp { .. } => {}
                Inbound::PeerDown { peer } if *peer != *self.name.to_string() => {}
                Inbound::PeerDown { .. } => return Err(agent_lost(Some("noconnection"))),
                Inbound::Down { reason, .. } => return Err(self.down(reason)),
                Inbound::Message(delivery) => match Message::from_checked(&delivery.payload) {
                    Ok(Message::Refuse(refuse)) if refuse.id.is_none_or(|id| id.0 == self.request.0) => {
                        return Err(NoAnswer::Refused(refuse.reason.to_string()));
                    }
                    Ok(message) => {
                        self.answered = true;
                        return Ok(message);
                    }
                    Err(error) => tracing::warn!(%error, "an answer that is not understood"),
                },
            }
        }
    }

    fn down(&self, reason: Option<String>) -> NoAnswer {
        match reason.as_deref() {
            Some(NO_AGENT) if !self.answered => NoAnswer::Refused("durable_handoff does not run there".to_owned()),
            reason => agent_lost(reason),
        }
    }

    /// The name of the given supervisor, or of the node's only one.
    pub(super) async fn supervisor(&mut self, given: Option<&str>) -> Result<String, NoAnswer> {
        match given {
            Some(given) => Ok(given.to_owned()),
            None => only_one(self.describe().await?, self.name),
        }
    }

    /// Refuses a node whose release is too old for `cordon`, `move` and `rebalance`: such a node would not
    /// answer. A node without supervisors is refused as well: it cannot execute any of these commands.
    pub(super) async fn expect(&mut self, command: &str) -> Result<(), NoAnswer> {
        let description = self.describe().await?;
        if description.supervisors.is_empty() {
            return Err(no_supervisor());
        }
        if description.supervisors.iter().all(|supervisor| supervisor.cordoned.is_some()) {
            return Ok(());
        }
        let text = format!("its durable_handoff {} does not know {command}", description.release);
        Err(NoAnswer::Refused(text))
    }

    async fn describe(&mut self) -> Result<Description, NoAnswer> {
        self.ask(|request, from| Describe { request, from })?;
        let described = self.next(|request, message| match message {
            Message::Description(description) if description.request == request => Some(description),
            _ => None,
        });
        described.await
    }
}

fn only_one(description: Description, node: &NodeName) -> Result<String, NoAnswer> {
    let mut names: Vec<String> = description.supervisors.into_iter().map(|info| info.name).collect();
    match (names.pop(), names.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            names.push(last);
            let text = format!("{node} has several, --supervisor takes one of: {}", names.join(", "));
            Err(NoAnswer::Incomplete(text))
        }
        (None, _) => Err(no_supervisor()),
    }
}

fn no_supervisor() -> NoAnswer {
    NoAnswer::Refused("no supervisor there has a Drainer".to_owned())
}

/// The reason of a monitor of an agent that does not exist.
pub(super) const NO_AGENT: &str = "noproc";

/// What the end of an agent for this reason means.
pub(super) fn agent_lost(reason: Option<&str>) -> NoAnswer {
    NoAnswer::Lost(match reason {
        Some("noconnection") => "the connection has ended".to_owned(),
        reason => format!("its agent has ended ({})", reason.unwrap_or("unknown")),
    })
}

pub(super) fn agent_process() -> Process {
    Process::Name(AGENT_PROCESS.to_owned())
}

/// Says why a node cannot be reached and what to do about it.
pub(super) fn why(error: &DialError) -> String {
    error.cause().map_or_else(|| error.to_string(), |cause| format!("{error}; {}", cause.advice()))
}

pub(super) fn unreachable(why: impl fmt::Display) -> NoAnswer {
    NoAnswer::Unreachable(why.to_string())
}

/// Prints a result, as JSON or as text.
pub(super) fn show(json: bool, what: &(impl Serialize + fmt::Display)) -> anyhow::Result<()> {
    show_as(json, what, |what| what.to_string())
}

/// As [`show`], for a result without a text of its own.
pub(super) fn show_as<T: Serialize + ?Sized>(json: bool, what: &T, text: impl Fn(&T) -> String) -> anyhow::Result<()> {
    let shown = if json { serde_json::to_string_pretty(what)? + "\n" } else { text(what) };
    std::io::stdout().lock().write_all(shown.as_bytes())?;
    Ok(())
}

pub(super) fn say(text: &str) {
    // Standard error may be closed.
    let _closed = writeln!(std::io::stderr(), "durable-handoff-node: {text}");
}
