//! `events`: what came of the orders, and what else happened at the source.
//!
//! Guarantee: an event is exactly an event of the embedded engine, in the same shape; the view travels by itself.

use etf::{
    Error, Term, atom, atom_name, choice, elements, list, optional, read_choice, read_each, read_text, read_u32,
    read_u64, text, tuple, uint,
};
use handoff_core::ServerId;
use handoff_core::event::{Blame, Event, Outcome};
use handoff_core::time::Micros;

use crate::body::{Body, DrainId, exactly, read_id};

/// In one message. A drainer sends what it has, whenever it has something.
pub const MAX_EVENTS: usize = 10_000;

const BLAME: [(&str, Blame); 4] =
    [("target", Blame::Target), ("server", Blame::Server), ("store", Blame::Store), ("unknown", Blame::Unknown)];

/// `{durable_handoff, 1, events, Id, [{finished, Server, Attempt, Outcome, LatencyUs} | {stopped, Server} |
/// {released, Server} | {node_down, Name} | cancel]}`
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// The drain.
    pub id: DrainId,
    /// What happened, the oldest first.
    pub events: Vec<Event>,
}

impl Body for Events {
    const KIND: &'static str = "events";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0), list(self.events.iter().filter_map(write))]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, events] = exactly(fields)?;
        Ok(Events { id: read_id(id)?, events: read_each(events, "events", MAX_EVENTS, read)? })
    }
}

fn write(event: &Event) -> Option<Term> {
    Some(match event {
        Event::Finished { id, attempt, outcome, latency } => tuple([
            atom("finished"),
            uint(id.0.into()),
            uint((*attempt).into()),
            write_outcome(outcome),
            uint(latency.0),
        ]),
        Event::Stopped { id } => tuple([atom("stopped"), uint(id.0.into())]),
        Event::Released { id } => tuple([atom("released"), uint(id.0.into())]),
        Event::NodeDown(name) => tuple([atom("node_down"), text(name)]),
        Event::Cancel => atom("cancel"),
        Event::View(_) => return None,
    })
}

fn read(term: &Term) -> Result<Event, Error> {
    let server = |term: &Term| read_u32(term, "server").map(ServerId);
    match elements(term) {
        Some([kind, id, attempt, outcome, latency]) if atom_name(kind) == Some("finished") => Ok(Event::Finished {
            id: server(id)?,
            attempt: read_u32(attempt, "attempt")?,
            outcome: read_outcome(outcome)?,
            latency: Micros(read_u64(latency, "latency_us")?),
        }),
        Some([kind, value]) => match atom_name(kind) {
            Some("stopped") => Ok(Event::Stopped { id: server(value)? }),
            Some("released") => Ok(Event::Released { id: server(value)? }),
            Some("node_down") => Ok(Event::NodeDown(read_text(value, "node_down")?)),
            _ => unknown(),
        },
        None if atom_name(term) == Some("cancel") => Ok(Event::Cancel),
        _ => unknown(),
    }
}

fn unknown() -> Result<Event, Error> {
    Err(Error::Field { field: "event", takes: "finished, stopped, released, node_down or cancel" })
}

fn write_outcome(outcome: &Outcome) -> Term {
    match outcome {
        Outcome::Moved { node } => tuple([atom("moved"), optional(node.as_deref().map(text))]),
        Outcome::RetrySame => atom("retry_same"),
        Outcome::Stopping => atom("stopping"),
        Outcome::Displaced(blame) => tuple([atom("displaced"), choice(blame, &BLAME)]),
        Outcome::Untouched(Blame::Unknown) => atom("untouched"),
        Outcome::Untouched(blame) => tuple([atom("untouched"), choice(blame, &BLAME)]),
        Outcome::Gone => atom("gone"),
        Outcome::LostRace => atom("lost_race"),
        Outcome::NotStored => atom("not_stored"),
        Outcome::NotStorable => atom("not_storable"),
    }
}

fn read_outcome(term: &Term) -> Result<Outcome, Error> {
    let takes = "an outcome as the embedded engine takes it";
    if let Some([kind, value]) = elements(term) {
        return match atom_name(kind) {
            Some("moved") if atom_name(value) == Some("nil") => Ok(Outcome::Moved { node: None }),
            Some("moved") => Ok(Outcome::Moved { node: Some(read_text(value, "moved")?) }),
            Some("displaced") => Ok(Outcome::Displaced(read_choice(value, "blame", &BLAME)?)),
            Some("untouched") => Ok(Outcome::Untouched(read_choice(value, "blame", &BLAME)?)),
            _ => Err(Error::Field { field: "outcome", takes }),
        };
    }
    match atom_name(term) {
        Some("retry_same") => Ok(Outcome::RetrySame),
        Some("stopping") => Ok(Outcome::Stopping),
        Some("untouched") => Ok(Outcome::Untouched(Blame::Unknown)),
        Some("gone") => Ok(Outcome::Gone),
        Some("lost_race") => Ok(Outcome::LostRace),
        Some("not_stored") => Ok(Outcome::NotStored),
        Some("not_storable") => Ok(Outcome::NotStorable),
        _ => Err(Error::Field { field: "outcome", takes }),
    }
}
