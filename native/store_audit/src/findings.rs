//! The counts and findings of an audit.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::object::{Heartbeat, Server};
use crate::{MAX_FINDINGS, MAX_HEARTBEAT_AGE_MS};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Readable servers in the store.
    pub servers: u64,
    pub by_status: BTreeMap<String, u64>,
    /// The servers by owner and status. `-` stands for no owner.
    pub by_owner: BTreeMap<String, BTreeMap<String, u64>>,
    /// The nodes that have a heartbeat.
    pub nodes: Vec<Node>,
    /// Reservations that have expired without a start of the server.
    pub outlived_reservations: Findings<Reservation>,
    /// Servers recorded as running on a node that does not run.
    pub orphans: Findings<Orphan>,
    pub unreadable: Findings<Unreadable>,
}

/// Findings of one kind: the number of all, and the first ones with their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Findings<T> {
    pub count: u64,
    /// Those with the smallest keys.
    pub first: Vec<T>,
}

/// A node and its heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    pub name: String,
    pub heartbeat_age_ms: i64,
    /// Whether the heartbeat is young enough for a running node.
    pub fresh: bool,
    /// Whether the node accepts no more servers.
    pub draining: bool,
}

/// A server that stays down until its reservation is cleared or a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reservation {
    pub key: String,
    pub node: String,
    /// Milliseconds since the reservation expired.
    pub outlived_ms: i64,
}

/// A server whose owner is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    pub key: String,
    pub node: String,
    /// Whether another node starts the server without a request.
    pub permanent: bool,
    pub why: Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason", content = "heartbeat_age_ms")]
pub enum Gone {
    NoHeartbeat,
    /// The node's heartbeat is this many milliseconds old.
    StaleHeartbeat(i64),
    /// A node of this name runs, but started after the server.
    Restarted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    pub key: String,
    pub why: String,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.outlived_reservations.count + self.orphans.count + self.unreadable.count == 0
    }
}

/// The state of an audit. Orphans are known only at the end, when all heartbeats were read.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    servers: u64,
    by_status: BTreeMap<String, u64>,
    by_owner: BTreeMap<String, BTreeMap<String, u64>>,
    heartbeats: BTreeMap<String, Heartbeat>,
    reserved: BTreeMap<String, (String, i64)>,
    running: BTreeMap<String, (String, Option<i64>, bool)>,
    unreadable: BTreeMap<String, String>,
}

impl Collector {
    pub(crate) fn unreadable(&mut self, key: String, why: String) {
        self.unreadable.insert(key, why);
    }

    pub(crate) fn heartbeat(&mut self, node: &str, read: Result<Heartbeat, String>) {
        match read {
            Ok(heartbeat) => {
                self.heartbeats.insert(node.to_owned(), heartbeat);
            }
            Err(why) => self.unreadable(format!("{}{node}", crate::NODES), why),
        }
    }

    pub(crate) fn server(&mut self, key: String, read: Result<Server, String>) {
        let server = match read {
            Ok(server) => server,
            Err(why) => return self.unreadable(key, why),
        };
        self.servers += 1;
        *self.by_status.entry(server.status.clone()).or_default() += 1;
        let owner = server.node.clone().unwrap_or_else(|| "-".to_owned());
        *self.by_owner.entry(owner).or_default().entry(server.status.clone()).or_default() += 1;
        if let Some((node, Some(until))) = server.reservation {
            self.reserved.insert(key.clone(), (node, until));
        }
        if let ("running", Some(node)) = (server.status.as_str(), server.node) {
            self.running.insert(key, (node, server.node_ref, server.permanent));
        }
    }

    pub(crate) fn report(self, now_ms: i64) -> Report {
        let heartbeats = &self.heartbeats;
        let orphans = self.running.into_iter().filter_map(|(key, (node, node_ref, permanent))| {
            let why = gone(heartbeats.get(&node), node_ref, now_ms)?;
            Some(Orphan { key, node, permanent, why })
        });
        let outlived = self.reserved.into_iter().filter_map(|(key, (node, until))| {
            let outlived_ms = now_ms.saturating_sub(until);
            (outlived_ms > 0).then_some(Reservation { key, node, outlived_ms })
        });
        let unreadable = self.unreadable.into_iter().map(|(key, why)| Unreadable { key, why });
        let nodes = heartbeats.iter().map(|(name, heartbeat)| {
            let heartbeat_age_ms = now_ms.saturating_sub(heartbeat.at_ms);
            let fresh = heartbeat_age_ms <= MAX_HEARTBEAT_AGE_MS;
            Node { name: name.clone(), heartbeat_age_ms, fresh, draining: heartbeat.draining }
        });
        Report {
            servers: self.servers,
            by_status: self.by_status,
            by_owner: self.by_owner,
            nodes: nodes.collect(),
            outlived_reservations: findings(outlived),
            orphans: findings(orphans),
            unreadable: findings(unreadable),
        }
    }
}

fn gone(heartbeat: Option<&Heartbeat>, node_ref: Option<i64>, now_ms: i64) -> Option<Gone> {
    let Some(heartbeat) = heartbeat else {
        return Some(Gone::NoHeartbeat);
    };
    let age = now_ms.saturating_sub(heartbeat.at_ms);
    if age > MAX_HEARTBEAT_AGE_MS {
        return Some(Gone::StaleHeartbeat(age));
    }
    // The owner started before the node's last start. Otherwise the node has not written its heartbeat yet.
    match (node_ref, heartbeat.node_ref) {
        (Some(owner), Some(now)) if owner < now => Some(Gone::Restarted),
        _ => None,
    }
}

fn findings<T>(all: impl Iterator<Item = T>) -> Findings<T> {
    let mut findings = Findings { count: 0, first: Vec::new() };
    for one in all {
        findings.count += 1;
        if findings.first.len() < MAX_FINDINGS {
            findings.first.push(one);
        }
    }
    findings
}
