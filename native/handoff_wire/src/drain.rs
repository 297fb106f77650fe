//! The messages of a drain that was opened: `drain_start` and `started`, `orders` and `events`, `keepalive`,
//! `progress`, `report`, `drain_close`.
//!
//! Guarantees
//! - The deadline is sent as remaining time, so that no common clock is needed. The drainer sends 500 ms less
//!   than it has, at most a tenth less. If messages take less time than that both ways, `finish` and `report`
//!   arrive before the drainer's own deadline, even if attempts are still in flight.
//! - `keepalive` and `drain_close` have no field except the drain's id.
//! - Orders, events, progress and report have the shapes of the embedded engine's. The view is a message of
//!   its own.

use etf::{Error, Term, list, read_each, read_value, value};
use handoff_core::{Action, Event, Progress, Report};

use crate::body::{DrainId, body, values};

/// The most orders in one message: as many as attempts may be in flight.
pub const MAX_ORDERS: usize = 10_000;
/// The most events in one message. A drainer sends its events as soon as it has some.
pub const MAX_EVENTS: usize = 10_000;

/// How often each side of a drain sends a message, in milliseconds.
pub const KEEPALIVE_MS: u64 = 500;
/// How long the other side may be silent, in milliseconds: four times that interval.
pub const SILENCE_MS: u64 = 2_000;

/// `{durable_handoff, 1, drain_start, Id, LeftMs}`: the engine begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainStart {
    pub id: DrainId,
    /// Milliseconds from the receipt of this message to the deadline.
    pub left_ms: u64,
}

/// `{durable_handoff, 1, started, Id}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub id: DrainId,
}

/// `{durable_handoff, 1, orders, Id, [{start, Server, Target, Attempt, TimeoutMs} | {release, Server} |
/// finish]}`: for the drainer, in this order.
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

/// `{durable_handoff, 1, events, Id, [{finished, Server, Attempt, Outcome, LatencyUs} | {stopped, Server} |
/// {released, Server} | {node_down, Name} | cancel]}`: outcomes of orders, and other events at the source.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    pub id: DrainId,
    pub events: Vec<Event>,
}

/// `{durable_handoff, 1, keepalive, Id}`: the drainer still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    pub id: DrainId,
}

/// `{durable_handoff, 1, progress, Id, #{total, pending, ...}}`. It also shows that the Rust node still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressUpdate {
    pub id: DrainId,
    pub progress: Progress,
}

/// `{durable_handoff, 1, report, Id, #{total, moved, left, ...}}`: the summary, after `finish`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportMessage {
    pub id: DrainId,
    pub report: Report,
}

/// `{durable_handoff, 1, drain_close, Id}`: the drainer needs nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainClose {
    pub id: DrainId,
}

body!(DrainStart = "drain_start": id, left_ms);
body!(Started = "started": id);
body!(Orders = "orders": id, actions);
body!(Events = "events": id, events);
body!(Keepalive = "keepalive": id);
body!(ProgressUpdate = "progress": id, progress);
body!(ReportMessage = "report": id, report);
body!(DrainClose = "drain_close": id);

values! {
    Vec<Action>: |actions| list(actions.iter().map(value)), read_actions;
    Vec<Event>: |events| list(events.iter().map(value)), read_events;
}

fn read_actions(term: &Term, _: &'static str) -> Result<Vec<Action>, Error> {
    read_each(term, "orders", MAX_ORDERS, |order| read_value(order, "order"))
}

fn read_events(term: &Term, field: &'static str) -> Result<Vec<Event>, Error> {
    read_each(term, field, MAX_EVENTS, |event| read_value(event, "event"))
}
