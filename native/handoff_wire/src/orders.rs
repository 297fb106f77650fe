//! `orders`: what the drainer is to do, in the order given.
//!
//! Guarantee: an order is exactly an action of the embedded engine, in the same shape.

use etf::{Error, Term, list, read_each, read_value, uint, value};
use handoff_core::Action;

use crate::body::{Body, DrainId, exactly, read_id};

/// As many as may be in flight.
pub const MAX_ORDERS: usize = 10_000;

/// `{durable_handoff, 1, orders, Id, [{start, Server, Target, Attempt, TimeoutMs} | {release, Server} |
/// finish]}`
#[derive(Debug, Clone, PartialEq)]
pub struct Orders {
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
        vec![uint(self.id.0), list(self.actions.iter().map(value))]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, actions] = exactly(fields)?;
        Ok(Orders {
            id: read_id(id)?,
            actions: read_each(actions, "orders", MAX_ORDERS, |order| read_value(order, "order"))?,
        })
    }
}
