//! `orders`: what the drainer is to do, in the order given.
//!
//! Guarantee: an order is exactly an action of the embedded engine, in the same shape.

use etf::{Error, Term, atom, atom_name, elements, list, read_each, read_text, read_u32, read_u64, text, tuple, uint};
use handoff_core::time::Micros;
use handoff_core::{Action, ServerId};

use crate::body::{Body, DrainId, exactly, read_id};

/// As many as may be in flight.
pub const MAX_ORDERS: usize = 10_000;

/// `{durable_handoff, 1, orders, Id, [{start, Server, Target, Attempt, TimeoutMs} | {release, Server} | finish]}`
#[derive(Debug, Clone, PartialEq)]
pub struct Orders {
    /// The drain.
    pub id: DrainId,
    /// What to do.
    pub actions: Vec<Action>,
}

impl Orders {
    /// Splits what the engine wants done into messages of a size the other side takes.
    pub fn split(id: DrainId, actions: &[Action]) -> impl Iterator<Item = Orders> + '_ {
        actions.chunks(MAX_ORDERS).map(move |actions| Orders { id, actions: actions.to_vec() })
    }
}

impl Body for Orders {
    const KIND: &'static str = "orders";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0), list(self.actions.iter().map(write))]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, actions] = exactly(fields)?;
        Ok(Orders { id: read_id(id)?, actions: read_each(actions, "orders", MAX_ORDERS, read)? })
    }
}

fn write(action: &Action) -> Term {
    match action {
        Action::Start { id, target, attempt, timeout } => {
            tuple([atom("start"), uint(id.0.into()), text(target), uint((*attempt).into()), uint(timeout.as_millis())])
        }
        Action::Release { id } => tuple([atom("release"), uint(id.0.into())]),
        Action::Finish => atom("finish"),
    }
}

fn read(term: &Term) -> Result<Action, Error> {
    match elements(term) {
        Some([kind, id, target, attempt, timeout_ms]) if atom_name(kind) == Some("start") => Ok(Action::Start {
            id: ServerId(read_u32(id, "server")?),
            target: read_text(target, "target")?.into(),
            attempt: read_u32(attempt, "attempt")?,
            timeout: Micros::from_millis(read_u64(timeout_ms, "timeout_ms")?),
        }),
        Some([kind, id]) if atom_name(kind) == Some("release") => {
            Ok(Action::Release { id: ServerId(read_u32(id, "server")?) })
        }
        None if atom_name(term) == Some("finish") => Ok(Action::Finish),
        _ => Err(Error::Field { field: "order", takes: "start, release or finish" }),
    }
}
