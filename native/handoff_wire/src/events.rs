//! `events`: outcomes of orders, and other events at the source.
//!
//! Guarantee: an event has the shape of an event of the embedded engine. The view is a message of its own.

use etf::{Error, Term, list, read_each, read_value, value};
use handoff_core::Event;

use crate::body::{DrainId, body, values};

/// The most events in one message. A drainer sends its events as soon as it has some.
pub const MAX_EVENTS: usize = 10_000;

/// `{durable_handoff, 1, events, Id, [{finished, Server, Attempt, Outcome, LatencyUs} | {stopped, Server} |
/// {released, Server} | {node_down, Name} | cancel]}`
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    pub id: DrainId,
    pub events: Vec<Event>,
}

body!(Events = "events": id, events);

values!(Vec<Event>: |events| list(events.iter().map(value)), read_events;);

fn read_events(term: &Term, field: &'static str) -> Result<Vec<Event>, Error> {
    read_each(term, field, MAX_EVENTS, |event| read_value(event, "event"))
}
