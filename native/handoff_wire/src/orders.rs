//! `orders`: actions for the drainer, in this order.
//!
//! Guarantee: an order has the shape of an action of the embedded engine.

use etf::{Error, Term, list, read_each, read_value, value};
use handoff_core::Action;

use crate::body::{DrainId, body, values};

/// The most orders in one message: as many as attempts may be in flight.
pub const MAX_ORDERS: usize = 10_000;

/// `{durable_handoff, 1, orders, Id, [{start, Server, Target, Attempt, TimeoutMs} | {release, Server} |
/// finish]}`
#[derive(Debug, Clone, PartialEq)]
pub struct Orders {
    pub id: DrainId,
    pub actions: Vec<Action>,
}

impl Orders {
    /// Splits the engine's actions into messages that the other side accepts.
    pub fn split(id: DrainId, actions: &[Action]) -> impl Iterator<Item = Orders> + '_ {
        actions.chunks(MAX_ORDERS).map(move |actions| Orders { id, actions: actions.to_vec() })
    }
}

body!(Orders = "orders": id, actions);

values!(Vec<Action>: |actions| list(actions.iter().map(value)), read_actions;);

fn read_actions(term: &Term, _: &'static str) -> Result<Vec<Action>, Error> {
    read_each(term, "orders", MAX_ORDERS, |order| read_value(order, "order"))
}
