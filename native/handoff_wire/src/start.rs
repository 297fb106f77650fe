//! `drain_start` and `started`: the engine begins.
//!
//! Guarantee: the deadline is sent as remaining time, so that no common clock is needed. The transmission
//! time only shortens it.

use etf::{Error, Term, read_u64, uint};

use crate::body::{Body, DrainId, exactly, read_id};

/// `{durable_handoff, 1, drain_start, Id, LeftMs}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainStart {
    pub id: DrainId,
    /// Milliseconds until the deadline when this was sent.
    pub left_ms: u64,
}

impl Body for DrainStart {
    const KIND: &'static str = "drain_start";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0), uint(self.left_ms)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, left_ms] = exactly(fields)?;
        Ok(DrainStart { id: read_id(id)?, left_ms: read_u64(left_ms, "left_ms")? })
    }
}

/// `{durable_handoff, 1, started, Id}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub id: DrainId,
}

impl Body for Started {
    const KIND: &'static str = "started";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id] = exactly(fields)?;
        Ok(Started { id: read_id(id)? })
    }
}
