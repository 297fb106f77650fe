//! What is read of a stored object.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eetf::{Map, Term};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The facts about a server that an audit needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `running`, `stopped_graceful`, ...
    pub status: String,
    /// The node that owns it, or owned it last.
    pub node: Option<String>,
    /// That node's start, which tells it from a later one of the same name.
    pub node_ref: Option<i64>,
    /// Whether it is to run again by itself.
    pub permanent: bool,
    /// The node it is reserved for, and until when (wall clock, ms).
    pub reservation: Option<(String, Option<i64>)>,
}

/// The facts about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// When it was written (wall clock, ms).
    pub at_ms: i64,
    /// That node's start.
    pub node_ref: Option<i64>,
    /// Whether it takes no more servers.
    pub draining: bool,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    // The state can be megabytes and is nobody's business here.
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

/// Reads a server's object, or says why it cannot be read.
///
/// # Errors
/// The reason, in words.
pub fn server(body: &[u8]) -> Result<Server, String> {
    if body.is_empty() {
        return Err("it is empty".to_owned());
    }
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|error| format!("it is no JSON envelope: {error}"))?;
    let meta = STANDARD.decode(envelope.meta).map_err(|error| format!("its meta is no Base64: {error}"))?;
    // The decoder trusts what it is given.
    handoff_wire::check::check(&meta).map_err(|error| format!("its meta is no term: {error}"))?;
    match Term::decode(meta.as_slice()) {
        Ok(Term::Map(meta)) => from_meta(&meta).ok_or_else(|| "its meta has no status".to_owned()),
        Ok(_other) => Err("its meta is no map".to_owned()),
        Err(error) => Err(format!("its meta is no term: {error}")),
    }
}

/// Reads a node's heartbeat, or says why it cannot be read.
///
/// # Errors
/// The reason, in words.
pub fn heartbeat(body: &[u8]) -> Result<Heartbeat, String> {
    let stored: StoredHeartbeat =
        serde_json::from_slice(body).map_err(|error| format!("it is no heartbeat: {error}"))?;
    let draining = stored.heartbeat_meta.as_ref().and_then(|meta| meta.get("draining")) == Some(&true.into());
    Ok(Heartbeat { at_ms: stored.last_heartbeat_at, node_ref: stored.node_ref, draining })
}

fn from_meta(meta: &Map) -> Option<Server> {
    let status = word(field(meta, "status")?)?;
    let reserved_for = field(meta, "restart_attempt_node").and_then(word);
    let until = field(meta, "restart_attempt_ttl").and_then(number);
    Some(Server {
        status,
        node: field(meta, "node_str").and_then(word),
        node_ref: field(meta, "node_ref").and_then(number),
        permanent: field(meta, "permanent").and_then(word).as_deref() == Some("true"),
        reservation: reserved_for.map(|node| (node, until)),
    })
}

fn field<'a>(meta: &'a Map, name: &str) -> Option<&'a Term> {
    meta.map.iter().find_map(|(key, value)| match key {
        Term::Atom(atom) if atom.name == name => Some(value),
        _ => None,
    })
}

/// A name, written as an atom or as a string; nothing for nil.
fn word(term: &Term) -> Option<String> {
    match term {
        Term::Atom(atom) if atom.name != "nil" => Some(atom.name.clone()),
        Term::Binary(binary) => String::from_utf8(binary.bytes.clone()).ok(),
        _ => None,
    }
}

fn number(term: &Term) -> Option<i64> {
    match term {
        Term::FixInteger(number) => Some(i64::from(number.value)),
        Term::BigInteger(number) => i64::try_from(&number.value).ok(),
        _ => None,
    }
}
