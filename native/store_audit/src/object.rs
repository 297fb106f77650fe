//! Reads the facts that an audit needs from a stored object.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use etf::{Checked, Fields, Term, atom_name, read_i64, read_text};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The facts about a server that an audit needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `running`, `stopped_graceful`, ...
    pub status: String,
    /// The node that owns the server, or owned it last.
    pub node: Option<String>,
    /// The start time of that node, which distinguishes it from a later node of the same name.
    pub node_ref: Option<i64>,
    /// Whether the server is started without a request.
    pub permanent: bool,
    /// The node it is reserved for, and until when (wall clock, ms).
    pub reservation: Option<(String, Option<i64>)>,
}

/// The facts about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// When the heartbeat was written (wall clock, ms).
    pub at_ms: i64,
    /// The start time of the node.
    pub node_ref: Option<i64>,
    /// Whether the node accepts no more servers.
    pub draining: bool,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    // The state can be megabytes and is not needed here.
    #[serde(borrow, rename = "state")]
    _state: &'a RawValue,
    meta: String,
}

#[derive(Deserialize)]
struct StoredHeartbeat {
    last_heartbeat_at: i64,
    node_ref: Option<i64>,
    #[serde(default)]
    heartbeat_meta: Option<serde_json::Value>,
}

/// Reads a server's object, or says in a sentence why it cannot be read.
pub fn server(body: &[u8]) -> Result<Server, String> {
    if body.is_empty() {
        return Err("it is empty".to_owned());
    }
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|error| format!("it is not a JSON envelope: {error}"))?;
    let meta = STANDARD.decode(envelope.meta).map_err(|error| format!("its meta is not Base64: {error}"))?;
    let no_term = |error: etf::Error| format!("its meta is not a term: {error}");
    let meta = Checked::first(&meta).map_err(|error| no_term(error.into()))?.0.decode().map_err(no_term)?;
    let meta = Fields::of(&meta, "meta").map_err(|_| "its meta is not a map".to_owned())?;
    from_meta(&meta).ok_or_else(|| "its meta has no status".to_owned())
}

/// Reads a node's heartbeat, or says in a sentence why it cannot be read.
pub fn heartbeat(body: &[u8]) -> Result<Heartbeat, String> {
    let stored: StoredHeartbeat =
        serde_json::from_slice(body).map_err(|error| format!("it is not a heartbeat: {error}"))?;
    let draining = stored.heartbeat_meta.as_ref().and_then(|meta| meta.get("draining")) == Some(&true.into());
    Ok(Heartbeat { at_ms: stored.last_heartbeat_at, node_ref: stored.node_ref, draining })
}

fn from_meta(meta: &Fields<'_>) -> Option<Server> {
    let name = |key| meta.get(key).and_then(name);
    let number = |key| meta.get(key).and_then(|term| read_i64(term, key).ok());
    Some(Server {
        status: name("status")?,
        node: name("node_str"),
        node_ref: number("node_ref"),
        permanent: name("permanent").as_deref() == Some("true"),
        reservation: name("restart_attempt_node").map(|node| (node, number("restart_attempt_ttl"))),
    })
}

/// A name, written as an atom or as a string.
fn name(term: &Term) -> Option<String> {
    atom_name(term).map(str::to_owned).or_else(|| read_text(term, "name").ok())
}
