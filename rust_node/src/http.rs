//! The HTTP service. Read only; off unless an address is configured.
//!
//! Guarantee: no answer waits for a peer, changes anything, or contains a secret. The resources of clients
//! are bounded ([`Bounds`]).
//!
//! | path | answer |
//! |---|---|
//! | `/` | an HTML page with the data of `/status` |
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 while the node accepts drains; else 503 with the reason. Then a line for each node that
//! is not connected |
//! | `/metrics` | OpenMetrics for clients that accept it, else Prometheus text |
//! | `/drains` | JSON, every drain |
//! | `/nodes` | JSON, every connected node |
//! | `/status` | JSON, all of the above, the latest drains and refusals; the command `status` shows it |
//!
//! The node accepts drains while its coordinator answers, EPMD knows it (if it listens), and, if nodes to
//! connect to are configured, a BEAM node is connected. Hidden nodes, such as other Rust nodes and remote
//! consoles, do not count: they have no drains.
//!
//! Every answer has headers that keep browsers from guessing its type and from showing it inside another
//! page. The page may run its own script and request data from this server only ([`page`]).

mod page;
mod serve;

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{Query, RELEASE, Snapshot};
use crate::distribution::Node;
use crate::distribution::troubles::Unreachable;
use crate::service::overview::SupervisorLine;
use crate::service::{DrainInfo, EndedDrain, Refusal};

/// The time limit of the coordinator's answer to a probe: shorter than the second that Kubernetes waits.
const PROBE_ANSWER: Duration = Duration::from_millis(800);
/// The same limit for all other requests: shorter than the five seconds that the command `status` waits.
const ANSWER: Duration = Duration::from_secs(4);

/// The most nodes that a probe's answer lists.
const PROBE_LINES: usize = 20;

#[derive(Debug, Clone)]
pub struct Source {
    pub node: Node,
    pub queries: mpsc::Sender<Query>,
    pub stopping: CancellationToken,
    /// Whether nodes to connect to are configured.
    pub has_seeds: bool,
    /// Whether EPMD knows the node; `None` for a node that does not listen.
    pub registered: Option<watch::Receiver<bool>>,
    pub began: Instant,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub release: String,
    pub running_s: u64,
    /// Why the node accepts no drains; `None` while it accepts them.
    pub not_ready: Option<String>,
    pub nodes: Vec<ConnectedNode>,
    /// The nodes that should be connected and are not, with the cause of each.
    #[serde(default)]
    pub unreachable: Vec<Unreachable>,
    /// The drains that the node coordinates.
    pub drains: Vec<DrainInfo>,
    /// The latest drains that have ended, newest first.
    #[serde(default)]
    pub ended: Vec<EndedDrain>,
    /// The latest refusals, newest first.
    #[serde(default)]
    pub refused: Vec<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedNode {
    pub name: String,
    pub hidden: bool,
    pub connected_s: u64,
    /// The release of the library on that node, once its agent has answered.
    pub library: Option<String>,
    /// The supervisors of that node, once the node has answered.
    #[serde(default)]
    pub supervisors: Vec<SupervisorLine>,
}

pub use serve::{Bounds, serve};

pub fn router(source: Source) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/drains", get(drains))
        .route("/nodes", get(nodes))
        .route("/status", get(status))
        .with_state(source)
        .layer(map_response(page::protect))
}

impl Source {
    async fn snapshot(&self, at_most: Duration) -> Option<Snapshot> {
        let asked = async {
            let (to, answer) = oneshot::channel();
            self.queries.send(Query(to)).await.ok()?;
            answer.await.ok()
        };
        timeout(at_most, asked).await.ok().flatten()
    }

    /// Why no drain is accepted, as far as this module knows.
    fn not_ready(&self, coordinator: Option<&Snapshot>) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            Some("stopping")
        } else if coordinator.is_none() {
            Some("the coordinator does not answer")
        } else if self.registered.as_ref().is_some_and(|registered| !*registered.borrow()) {
            Some("not registered in EPMD")
        } else if self.has_seeds && self.node.peers().iter().all(|peer| peer.hidden) {
            Some("no node is connected")
        } else {
            None
        }
    }

    fn nodes(&self, coordinator: &Snapshot) -> Vec<ConnectedNode> {
        let node = |peer: crate::distribution::PeerInfo| ConnectedNode {
            library: coordinator.agents.get(&peer.name).cloned(),
            supervisors: coordinator.supervisors.get(&peer.name).cloned().unwrap_or_default(),
            name: peer.name,
            hidden: peer.hidden,
            connected_s: peer.connected_s,
        };
        self.node.peers().into_iter().map(node).collect()
    }
}

async fn ready(State(source): State<Source>) -> Response {
    match source.not_ready(source.snapshot(PROBE_ANSWER).await.as_ref()) {
        None => format!("ready\n{}", unreachable(&source.node)).into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n{}", unreachable(&source.node))).into_response(),
    }
}

/// Lists the first nodes that are not connected, one per line. Such nodes do not make this node unready while
/// others are connected.
fn unreachable(node: &Node) -> String {
    let line = |of: &Unreachable| format!("{}: {}: {}; {}\n", of.name, of.cause, of.error, of.advice);
    node.troubles().list().iter().take(PROBE_LINES).map(line).collect()
}

async fn metrics(State(source): State<Source>, headers: HeaderMap) -> Response {
    // The result is for the next request: nodes are asked for descriptions only while clients request them.
    let (unread, _) = oneshot::channel();
    let _busy = source.queries.try_send(Query(unread));
    let metrics = &source.node.options().metrics;
    source.node.troubles().count(metrics);
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (kind, text) = if accepted.into_iter().any(|accepted| accepted.contains("application/openmetrics-text")) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.render())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", metrics.render_for_prometheus())
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn drains(State(source): State<Source>) -> Response {
    answer(source.snapshot(ANSWER).await.map(|snapshot| snapshot.drains))
}

async fn nodes(State(source): State<Source>) -> Response {
    answer(source.snapshot(ANSWER).await.map(|snapshot| source.nodes(&snapshot)))
}

async fn status(State(source): State<Source>) -> Response {
    let snapshot = source.snapshot(ANSWER).await;
    let not_ready = source.not_ready(snapshot.as_ref()).map(str::to_owned);
    answer(snapshot.map(|snapshot| Status {
        name: source.node.name(),
        release: RELEASE.to_owned(),
        running_s: source.began.elapsed().as_secs(),
        not_ready,
        nodes: source.nodes(&snapshot),
        unreachable: source.node.troubles().list(),
        drains: snapshot.drains,
        ended: snapshot.ended,
        refused: snapshot.refused,
    }))
}

fn answer(body: Option<impl Serialize>) -> Response {
    body.map_or_else(
        || (StatusCode::SERVICE_UNAVAILABLE, "the coordinator does not answer\n").into_response(),
        |body| Json(body).into_response(),
    )
}
