//! `events`: outcomes of orders, and other events at the source.
//!
//! Guarantee: an event has the shape of an event of the embedded engine. The view is a message of its own.

use etf::{Error, Term, list, read_each, read_value, uint, value};
use handoff_core::Event;

use crate::body::{Body, DrainId, exactly, read_id};

/// The most events in one message. A drainer sends its events as soon as it has some.
pub const MAX_EVENTS: usize = 10_000;

/// `{durable_handoff, 1, events, Id, [{finished, Server, Attempt, Outcome, LatencyUs} | {stopped, Server} |
/// {released, Server} | {node_down, Name} | cancel]}`
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    pub id: DrainId,
    /// The events, oldest first.
    pub events: Vec<Event>,
}

impl Body for Events {
    const KIND: &'static str = "events";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0), list(self.events.iter().map(value))]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, events] = exactly(fields)?;
        Ok(Events {
            id: read_id(id)?,
            events: read_each(events, "events", MAX_EVENTS, |event| read_value(event, "event"))?,
        })
    }
}
