//! `nodes`: lists every node of the cluster with its release, age, load, and whether the node is draining.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use handoff_wire::{Describe, Description, Message, RequestId};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::agent::{NO_AGENT, NoAnswer, agent_lost, agent_process, say, show_as, unreachable, why};
use super::columns::columns;
use super::exit::Exit;
use super::run::{random_creation, start};
use crate::distribution::dial::dial;
use crate::distribution::dialler::nodes_known_by;
use crate::distribution::found::nodes_at_each;
use crate::distribution::{Inbound, Node, Seed};
use crate::open_files;
use crate::service::overview::SupervisorLine;
use crate::settings::Settings;

/// How long to wait for the agents' answers.
const ANSWERS: Duration = Duration::from_secs(3);

/// A node and its description of itself.
#[derive(Debug, Serialize)]
pub struct NodeLine {
    pub name: String,
    /// The release of the library on that node; absent when the library does not run there, or when there is an error.
    pub library: Option<String>,
    /// Why the node has not described itself, although it may have the library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<NoAnswer>,
    pub supervisors: Vec<SupervisorLine>,
    /// See [`Description::knows`].
    #[serde(skip)]
    pub knows: Vec<String>,
}

/// Connects, asks all nodes, prints the list.
pub async fn nodes(settings: Settings, json: bool) -> anyhow::Result<Exit> {
    let node = start(&settings, random_creation())?;
    let lines = survey(&node, &settings).await?;
    let hidden = node.peers().len();
    node.stop();
    show_as(json, &*lines, table)?;
    let errors = say_errors(&lines);
    if lines.iter().all(NodeLine::is_unreachable) {
        say(match hidden {
            0 => "no node could be reached",
            _ => "only hidden nodes were reached, such as Rust nodes: connect to a node of the cluster",
        });
        return Ok(Exit::Unreachable);
    }
    Ok(errors)
}

/// Prints which nodes have not described themselves. Returns the exit code for them.
pub(super) fn say_errors(lines: &[NodeLine]) -> Exit {
    let errors = lines.iter().filter_map(|line| Some((&line.name, line.error.as_ref()?)));
    errors.fold(Exit::Done, |exit, (name, error)| {
        say(&format!("{name}: {}", error.text()));
        exit.worse(error.exit())
    })
}

/// Connects to the given nodes, to the nodes that these know, and so on, and asks each for its description. A node
/// that is configured, or that a reached node knows, has a line even if it cannot be reached. Of one that only DNS
/// names, standard error says why not: DNS may list several addresses of one node.
pub(super) async fn survey(node: &Node, settings: &Settings) -> anyhow::Result<Vec<NodeLine>> {
    // A node that cannot be dialled for lack of them has that error.
    let _limit = open_files::raise(settings.limits.known);
    let mut next: Vec<Seed> = settings.connect.clone();
    let mut expected: BTreeSet<String> = next.iter().map(|seed| seed.name.to_string()).collect();
    for (host, found) in nodes_at_each(node, &settings.connect_dns).await {
        match found {
            Ok(found) => {
                next.extend(found.seeds);
                found.failures.iter().for_each(|(name, error)| say(&format!("{name}: {}", why(error))));
            }
            Err(error) => say(&format!("{}: {}", host.name, why(&error))),
        }
    }
    // Of two seeds of one node the first is dialled.
    next.sort_by_key(|seed| seed.port.is_none());
    let mut lines: BTreeMap<String, NodeLine> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::from([node.name()]);
    while !next.is_empty() {
        let mut round = JoinSet::new();
        for seed in next.drain(..) {
            let name = seed.name.to_string();
            // A node may name any number of nodes that do not exist.
            if seen.len() >= node.options().limits.known || !seen.insert(name.clone()) {
                continue;
            }
            let (node, discovery) = (node.clone(), settings.discovery);
            round.spawn(async move {
                let (error, known) = match dial(&node, &seed).await {
                    Ok(()) if discovery => (lost(), nodes_known_by(&node, &name).await),
                    Ok(()) => (lost(), Vec::new()),
                    Err(error) => (unreachable(format!("cannot be reached: {}", why(&error))), Vec::new()),
                };
                (NodeLine::without(name, Some(error)), known)
            });
        }
        while let Some(dialled) = round.join_next().await {
            let Ok((line, mut known)) = dialled else { continue };
            lines.insert(line.name.clone(), line);
            known.retain(|seed| node.options().allow.allows(&seed.name.to_string()));
            expected.extend(known.iter().map(|seed| seed.name.to_string()));
            next.extend(known);
        }
    }
    let is_of_dns = |name: &String, line: &mut NodeLine| line.is_unreachable() && !expected.contains(name);
    let of_dns: Vec<NodeLine> = lines.extract_if(.., is_of_dns).map(|(_, line)| line).collect();
    let _uncounted = say_errors(&of_dns);
    ask(node, lines).await
}

fn lost() -> NoAnswer {
    agent_lost(Some("noconnection"))
}

/// Asks the agent of every connected node for its description. A node without an agent is listed by its name alone.
/// `lines` has the nodes that were dialled, each with the error that holds if it is not connected now.
async fn ask(node: &Node, mut lines: BTreeMap<String, NodeLine>) -> anyhow::Result<Vec<NodeLine>> {
    let Some(mut mailbox) = node.register("durable_handoff_operator") else { anyhow::bail!("a name is taken") };
    let request = RequestId(1);
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    for peer in node.peers() {
        if peer.hidden {
            lines.remove(&peer.name);
            continue;
        }
        // The monitor is set before the request, so that a node without an agent answers with `noproc`.
        node.monitor(&mailbox, &peer.name, agent_process());
        let question = Message::from(Describe { request, from: mailbox.pid.clone() });
        let error = match node.send(&peer.name, &mailbox.pid, &agent_process(), question.to_term()) {
            Ok(()) => {
                waiting.insert(peer.name.clone());
                NoAnswer::Lost(format!("no answer for {} s", ANSWERS.as_secs()))
            }
            Err(error) => unreachable(error),
        };
        lines.insert(peer.name.clone(), NodeLine::without(peer.name, Some(error)));
    }
    let answers = async {
        while !waiting.is_empty() {
            let Some(inbound) = mailbox.receive().await else { break };
            let line = match inbound {
                Inbound::Message(delivery) => match Message::from_checked(&delivery.payload) {
                    Ok(Message::Description(description)) => NodeLine::of(delivery.peer.to_string(), description),
                    Ok(Message::Refuse(refuse)) if refuse.id.is_none_or(|id| id.0 == request.0) => {
                        let error = NoAnswer::Refused(refuse.reason.to_string());
                        NodeLine::without(delivery.peer.to_string(), Some(error))
                    }
                    _ => continue,
                },
                Inbound::Down { peer, reason, .. } if reason.as_deref() == Some(NO_AGENT) => {
                    NodeLine::without(peer.to_string(), None)
                }
                Inbound::Down { peer, reason, .. } => {
                    NodeLine::without(peer.to_string(), Some(agent_lost(reason.as_deref())))
                }
                Inbound::PeerDown { peer } => NodeLine::without(peer.to_string(), Some(lost())),
                Inbound::PeerUp { .. } => continue,
            };
            if waiting.remove(&line.name) {
                lines.insert(line.name.clone(), line);
            }
        }
    };
    let _in_time = timeout(ANSWERS, answers).await;
    Ok(lines.into_values().collect())
}

impl NodeLine {
    fn of(name: String, description: Description) -> NodeLine {
        let now_ms = description.now_ms;
        let supervisors = description.supervisors.into_iter().map(|info| SupervisorLine::new(info, now_ms)).collect();
        NodeLine { name, library: Some(description.release), error: None, supervisors, knows: description.knows }
    }

    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self.error, Some(NoAnswer::Unreachable(_)))
    }

    /// A node that has not described itself.
    fn without(name: String, error: Option<NoAnswer>) -> NodeLine {
        NodeLine { name, library: None, error, supervisors: Vec::new(), knows: Vec::new() }
    }
}

fn table(lines: &[NodeLine]) -> String {
    if lines.iter().all(NodeLine::is_unreachable) {
        return String::new();
    }
    let mut rows = vec![["NODE", "LIBRARY", "SUPERVISOR", "RELEASE", "AGE", "SERVERS", "STATE"].map(str::to_owned)];
    for line in lines {
        let library = line.library.clone().unwrap_or_else(|| "-".to_owned());
        if line.supervisors.is_empty() {
            let dash = || "-".to_owned();
            rows.push([line.name.clone(), library.clone(), dash(), dash(), dash(), dash(), dash()]);
        }
        for supervisor in &line.supervisors {
            rows.push([
                line.name.clone(),
                library.clone(),
                supervisor.name.clone(),
                supervisor.release.clone().unwrap_or_else(|| "-".to_owned()),
                supervisor.age_s.map_or_else(|| "-".to_owned(), |age| format!("{age}s")),
                supervisor.servers.to_string(),
                supervisor.state().to_owned(),
            ]);
        }
    }
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_the_library_is_listed() {
        let lines = [NodeLine::without("a@h".to_owned(), None)];
        assert_eq!(
            table(&lines),
            "NODE  LIBRARY  SUPERVISOR  RELEASE  AGE  SERVERS  STATE\na@h   -        -           -        -    -        -\n"
        );
    }
}
