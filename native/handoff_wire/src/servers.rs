//! `servers`: a chunk of the drain's servers as dense records.
//!
//! Guarantee: a message stays below 64 KB, holds whole records only, and at most [`PER_CHUNK`] of them. A
//! server's id is its position in the drain; keys never travel.

use etf::{Error, Term, binary, read_bytes};
use handoff_core::{ModuleId, ServerSpec, StickyId};

use crate::body::{DrainId, body, values};

/// Module index, sticky index (both unsigned) and priority (signed): three times 32 bits, big endian.
pub const RECORD: usize = 12;
/// 60,000 bytes.
pub const PER_CHUNK: usize = 5_000;

/// `{durable_handoff, 1, servers, Id, First, <<Module:32, Sticky:32, Priority:32/signed, ...>>}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    pub id: DrainId,
    /// The id of the first server here; chunks come in order and without a hole.
    pub first: u32,
    pub servers: Vec<ServerSpec>,
}

body!(Servers = "servers": id, first, servers);

values!(Vec<ServerSpec>: |servers| binary(records(servers)), read_servers;);

fn records(servers: &[ServerSpec]) -> Vec<u8> {
    let record = |of: &ServerSpec| [of.module.0.to_be_bytes(), of.sticky.0.to_be_bytes(), of.priority.to_be_bytes()];
    servers.iter().flat_map(record).flatten().collect()
}

fn read_servers(term: &Term, field: &'static str) -> Result<Vec<ServerSpec>, Error> {
    let (whole, rest) = read_bytes(term, field)?.as_chunks::<RECORD>();
    if whole.len() > PER_CHUNK {
        return Err(Error::TooMany { what: "servers in a chunk", got: whole.len(), takes: PER_CHUNK });
    }
    if !rest.is_empty() {
        return Err(Error::Field { field, takes: "whole records of 12 bytes" });
    }
    Ok(whole.iter().map(server).collect())
}

fn server(bytes: &[u8; RECORD]) -> ServerSpec {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
    ServerSpec {
        module: ModuleId(u32::from_be_bytes([a, b, c, d])),
        sticky: StickyId(u32::from_be_bytes([e, f, g, h])),
        priority: i32::from_be_bytes([i, j, k, l]),
    }
}
