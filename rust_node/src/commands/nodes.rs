//! `nodes`: lists every node of the cluster with its release, age, load, and whether the node is draining.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use handoff_wire::{AGENT_PROCESS, Describe, Description, Message, RequestId};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::agent::{say, show_as, why};
use super::columns::columns;
use super::exit::Exit;
use super::run::{random_creation, start};
use crate::distribution::dial::dial;
use crate::distribution::dialler::nodes_known_by;
use crate::distribution::found::nodes_at;
use crate::distribution::{Inbound, MonitorRef, Node, Process, Seed};
use crate::service::overview::SupervisorLine;
use crate::settings::Settings;

/// How long to wait for the agents' answers.
const ANSWERS: Duration = Duration::from_secs(3);

/// A node and its description of itself.
#[derive(Debug, Serialize)]
pub struct NodeLine {
    pub name: String,
    /// The release of the library on that node; absent when the library does not run there.
    pub library: Option<String>,
    pub supervisors: Vec<SupervisorLine>,
    /// See [`Description::knows`].
    #[serde(skip)]
    pub knows: Vec<String>,
}

/// Connects, asks all nodes, prints the list.
pub async fn nodes(settings: Settings, json: bool) -> anyhow::Result<Exit> {
    let node = start(&settings, random_creation())?;
    let failures = connect_all(&node, &settings).await;
    let lines = ask(&node).await?;
    let hidden = node.peers().len();
    node.stop();
    show_as(json, &*lines, table)?;
    failures.iter().for_each(|failure| say(failure));
    if lines.is_empty() {
        say(match hidden {
            0 => "no node could be reached",
            _ => "only hidden nodes were reached, such as Rust nodes: connect to a node of the cluster",
        });
        return Ok(Exit::Unreachable);
    }
    Ok(Exit::Done)
}

/// Dials the given nodes, the nodes that these know, and so on. Returns why each of the others failed.
pub(super) async fn connect_all(node: &Node, settings: &Settings) -> Vec<String> {
    let mut failures = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::from([node.name()]);
    let mut next: Vec<Seed> = settings.connect.clone();
    for host in &settings.connect_dns {
        match nodes_at(node, host).await {
            Ok(found) => {
                next.extend(found.seeds);
                failures.extend(found.failures.iter().map(|(name, error)| format!("{name}: {}", why(error))));
            }
            Err(error) => failures.push(format!("{}: {}", host.name, why(&error))),
        }
    }
    while !next.is_empty() {
        let mut round = JoinSet::new();
        for seed in next.drain(..) {
            // A node may name any number of nodes that do not exist.
            if seen.len() >= node.options().limits.known || !seen.insert(seed.name.to_string()) {
                continue;
            }
            let (node, discovery) = (node.clone(), settings.discovery);
            round.spawn(async move {
                match dial(&node, &seed).await {
                    Ok(()) if discovery => Ok(nodes_known_by(&node, &seed.name.to_string()).await),
                    Ok(()) => Ok(Vec::new()),
                    Err(error) => Err(format!("{} cannot be reached: {}", seed.name, why(&error))),
                }
            });
        }
        while let Some(found) = round.join_next().await {
            match found {
                Ok(Ok(found)) => next.extend(found),
                Ok(Err(failure)) => failures.push(failure),
                Err(_cancelled) => {}
            }
        }
    }
    failures
}

/// Asks every agent for its description. A node without an agent is listed by its name alone.
pub(super) async fn ask(node: &Node) -> anyhow::Result<Vec<NodeLine>> {
    let Some(mut mailbox) = node.register("durable_handoff_operator") else { anyhow::bail!("a name is taken") };
    let mut lines: BTreeMap<String, Option<Description>> = BTreeMap::new();
    let mut waiting: BTreeMap<String, MonitorRef> = BTreeMap::new();
    for peer in node.peers().into_iter().filter(|peer| !peer.hidden) {
        let agent = Process::Name(AGENT_PROCESS.to_owned());
        // The monitor is set before the request, so that a node without an agent answers with `noproc`.
        let monitor = node.monitor(&mailbox, &peer.name, agent.clone());
        let question = Message::from(Describe { request: RequestId(1), from: mailbox.pid.clone() });
        if node.send(&peer.name, &mailbox.pid, &agent, question.to_term()).is_ok() {
            waiting.insert(peer.name.clone(), monitor);
        }
        lines.insert(peer.name, None);
    }
    let answers = async {
        while !waiting.is_empty() {
            match mailbox.receive().await {
                Some(Inbound::Message(delivery)) => {
                    if let Ok(Message::Description(description)) = Message::from_checked(&delivery.payload) {
                        waiting.remove(&*delivery.peer);
                        lines.insert(delivery.peer.to_string(), Some(description));
                    }
                }
                Some(Inbound::Down { peer, .. } | Inbound::PeerDown { peer }) => {
                    waiting.remove(&*peer);
                }
                Some(Inbound::PeerUp { .. }) => {}
                None => break,
            }
        }
    };
    // A node that does not answer in time is listed by its name alone.
    let _in_time = timeout(ANSWERS, answers).await;
    Ok(lines.into_iter().map(|(name, description)| line(name, description)).collect())
}

fn line(name: String, description: Option<Description>) -> NodeLine {
    let Some(description) = description else {
        return NodeLine { name, library: None, supervisors: Vec::new(), knows: Vec::new() };
    };
    let now_ms = description.now_ms;
    let supervisors = description.supervisors.into_iter().map(|info| SupervisorLine::new(info, now_ms)).collect();
    NodeLine { name, library: Some(description.release), supervisors, knows: description.knows }
}

fn table(lines: &[NodeLine]) -> String {
    if lines.is_empty() {
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
        let lines = [NodeLine { name: "a@h".to_owned(), library: None, supervisors: vec![], knows: vec![] }];
        assert_eq!(
            table(&lines),
            "NODE  LIBRARY  SUPERVISOR  RELEASE  AGE  SERVERS  STATE\na@h   -        -           -        -    -        -\n"
        );
    }
}
