//! `servers`: a chunk of the drain's servers as dense records.
//!
//! Guarantee: a message stays below 64 KB, holds whole records only, and at most [`PER_CHUNK`] of them. A
//! server's id is its position in the drain; keys never travel.

use etf::{Error, Term, binary, read_bytes, read_u32, uint};
use handoff_core::{ModuleId, ServerSpec, StickyId};

use crate::body::{Body, DrainId, exactly, read_id};

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

impl Body for Servers {
    const KIND: &'static str = "servers";

    fn write(&self) -> Vec<Term> {
        let mut bytes = Vec::with_capacity(self.servers.len() * RECORD);
        for server in &self.servers {
            bytes.extend(server.module.0.to_be_bytes());
            bytes.extend(server.sticky.0.to_be_bytes());
            bytes.extend(server.priority.to_be_bytes());
        }
        vec![uint(self.id.0), uint(self.first.into()), binary(bytes)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, first, records] = exactly(fields)?;
        let records = read_bytes(records, "servers")?;
        let (whole, rest) = records.as_chunks::<RECORD>();
        if whole.len() > PER_CHUNK {
            return Err(Error::TooMany { what: "servers in a chunk", got: whole.len(), takes: PER_CHUNK });
        }
        if !rest.is_empty() {
            return Err(Error::Field { field: "servers", takes: "whole records of 12 bytes" });
        }
        Ok(Servers { id: read_id(id)?, first: read_u32(first, "first")?, servers: whole.iter().map(record).collect() })
    }
}

fn record(bytes: &[u8; RECORD]) -> ServerSpec {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
    ServerSpec {
        module: ModuleId(u32::from_be_bytes([a, b, c, d])),
        sticky: StickyId(u32::from_be_bytes([e, f, g, h])),
        priority: i32::from_be_bytes([i, j, k, l]),
    }
}
