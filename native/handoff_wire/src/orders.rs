//! `orders`: actions for the drainer, in this order.
//!
//! Guarantee: an order has the shape of an action of the embedded engine.

use etf::{Error, Term, list, read_each, read_value, uint, value};
use handoff_core::Action;

use crate::body::{Body, DrainId, exactly, read_id};

/// The most orders in one message: as many as attempts may be in flight.
pub const MAX_ORDERS: usize = 10_000;

/// `{durable_handoff, 1, orders, Id, [{start, Server, Target, Attempt, TimeoutMs} | {release, Server} |
/// finish]}`
#[derive(Debug, Clone, PartialEq)]
pub struct Orders {
    pub id: DrainId,
    /// The actions.
    pub actions: Vec<Action>,
}

impl Orders {
    /// Splits the engine's actions into messages that the other side accepts.
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
