//! The counts and findings of an audit.

use std::collections::BTreeMap;

use serde::Serialize;
use state_store::{Error, Object};

use crate::object::{self, Heartbeat, Server};
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

/// The state of an audit. Findings are known only at the end, when all heartbeats were read.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// Servers that cannot become a finding.
    counted: Counts,
    /// The others: those that run, and those that are reserved.
    open: BTreeMap<String, Server>,
    heartbeats: BTreeMap<String, Heartbeat>,
    unreadable: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Counts {
    servers: u64,
    by_status: BTreeMap<String, u64>,
    by_owner: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Counts {
    fn add(&mut self, server: &Server) {
        self.servers += 1;
        *self.by_status.entry(server.status.clone()).or_default() += 1;
        let owner = server.node.clone().unwrap_or_else(|| "-".to_owned());
        *self.by_owner.entry(owner).or_default().entry(server.status.clone()).or_default() += 1;
    }
}

impl Collector {
    /// Takes an object that was read, in place of what was read of it before. `nodes` is the prefix of heartbeats.
    pub(crate) fn take(&mut self, nodes: &str, key: String, answer: Result<Object, Error>) {
        self.open.remove(&key);
        self.unreadable.remove(&key);
        let body = match answer {
            Ok(object) => Ok(object.body),
            // The object was deleted after it was listed.
            Err(Error::NotFound) => return,
            Err(error) => Err(error.to_string()),
        };
        let read = match key.strip_prefix(nodes) {
            Some(node) => body.and_then(|body| object::heartbeat(&body)).map(|heartbeat| {
                self.heartbeats.insert(node.to_owned(), heartbeat);
            }),
            None => body.and_then(|body| object::server(&body)).map(|server| self.server(&key, server)),
        };
        if let Err(why) = read {
            self.unreadable.insert(key, why);
        }
    }

    fn server(&mut self, key: &str, server: Server) {
        if owner(&server).is_some() || reserved(&server).is_some() {
            self.open.insert(key.to_owned(), server);
        } else {
            self.counted.add(&server);
        }
    }

    /// The keys of the servers that would be findings by what was read so far.
    pub(crate) fn suspects(&self, now_ms: i64) -> Vec<String> {
        let is_suspect = |(_, server): &(&String, &Server)| {
            self.why_orphan(server, now_ms).is_some() || outlived(server, now_ms).is_some()
        };
        self.open.iter().filter(is_suspect).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn report(mut self, now_ms: i64) -> Report {
        let open = std::mem::take(&mut self.open);
        open.values().for_each(|server| self.counted.add(server));
        let orphans = open.iter().filter_map(|(key, server)| {
            let (node, why) = self.why_orphan(server, now_ms)?;
            Some(Orphan { key: key.clone(), node: node.to_owned(), permanent: server.permanent, why })
        });
        let reservations = open.iter().filter_map(|(key, server)| {
            let (node, outlived_ms) = outlived(server, now_ms)?;
            Some(Reservation { key: key.clone(), node: node.to_owned(), outlived_ms })
        });
        let (orphans, outlived_reservations) = (findings(orphans), findings(reservations));
        let unreadable = self.unreadable.into_iter().map(|(key, why)| Unreadable { key, why });
        let nodes = self.heartbeats.iter().map(|(name, heartbeat)| {
            // One that was read again can be younger than the audit.
            let heartbeat_age_ms = now_ms.saturating_sub(heartbeat.at_ms).max(0);
            let fresh = heartbeat_age_ms <= MAX_HEARTBEAT_AGE_MS;
            Node { name: name.clone(), heartbeat_age_ms, fresh, draining: heartbeat.draining }
        });
        Report {
            servers: self.counted.servers,
            by_status: self.counted.by_status,
            by_owner: self.counted.by_owner,
            nodes: nodes.collect(),
            outlived_reservations,
            orphans,
            unreadable: findings(unreadable),
        }
    }

    fn why_orphan<'s>(&self, server: &'s Server, now_ms: i64) -> Option<(&'s str, Gone)> {
        let node = owner(server)?;
        Some((node, gone(self.heartbeats.get(node), server.node_ref, now_ms)?))
    }
}

/// The node on which a server is recorded as running.
fn owner(server: &Server) -> Option<&str> {
    server.node.as_deref().filter(|_| server.status == "running")
}

/// The node that a server is reserved for, and until when, if that is known.
fn reserved(server: &Server) -> Option<(&str, i64)> {
    let (node, until) = server.reservation.as_ref()?;
    Some((node, (*until)?))
}

/// The node of an expired reservation, and the milliseconds since it expired.
fn outlived(server: &Server, now_ms: i64) -> Option<(&str, i64)> {
    let (node, until) = reserved(server)?;
    let outlived_ms = now_ms.saturating_sub(until);
    (outlived_ms > 0).then_some((node, outlived_ms))
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
