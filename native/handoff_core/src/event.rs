//! What goes into the engine and what comes out: the whole protocol between it and the caller that runs the attempts.
//!
//! Guarantee: these types carry everything; the engine reads no clock, no registry and no store.

use std::sync::Arc;

use crate::ids::ServerId;
use crate::time::Micros;
use crate::view::ClusterView;

/// Whose fault a failed attempt was: it decides who is avoided next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Blame {
    /// The target refused, is full, not ready, unreachable or too slow: rest it, try another.
    Target,
    /// The server's own start failed there: try another target for this server, nothing against the target.
    Server,
    /// The object store: fewer attempts at a time, the same targets.
    Store,
    /// Not known: try another target for this server.
    Unknown,
}

/// How an attempt ended, normalised by the host (see the table of `rehome_child` results in the contract).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Outcome {
    /// It runs elsewhere: on the attempt's target, or on the named node when somebody else started it there.
    Moved {
        /// Where, if not on the target.
        node: Option<String>,
    },
    /// Stopped here, but the target's registry has not heard of it yet: the same target again, shortly.
    RetrySame,
    /// Told to stop and not down yet; [`Event::Stopped`] follows when it is.
    Stopping,
    /// Stopped and reserved for the source: it runs nowhere until started or released.
    Displaced(Blame),
    /// Nothing happened to it in this attempt: it still runs at the source, or is as displaced as before.
    Untouched(#[cfg_attr(feature = "serde", serde(deserialize_with = "crate::shape::blame_or_unknown"))] Blame),
    /// It is not there any more and nothing is left to move.
    Gone,
    /// Another owner has it; no reservation is left.
    LostRace,
    /// Stopped here, but its final write failed: it runs nowhere until started, without what it did since its last sync.
    NotStored,
    /// Stopped here and ended by a fault of its own before its final write. For the server the same as [`Outcome::NotStored`]; it
    /// says nothing about the store.
    StopFailed,
    /// Its state cannot be stored, whatever the store does. It was not stopped for that.
    NotStorable,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Event {
    /// An attempt ended.
    Finished {
        /// Whose.
        id: ServerId,
        /// Which; as numbered in [`Action::Start`].
        attempt: u32,
        /// How.
        outcome: Outcome,
        /// How long the attempt took where it ran.
        latency: Micros,
    },
    /// A server that was [`Outcome::Stopping`] is down now, reserved for the source.
    Stopped {
        /// Whose.
        id: ServerId,
    },
    /// The reservation of a released server is cleared, or could not be.
    Released {
        /// Whose.
        id: ServerId,
    },
    /// The cluster was looked at anew.
    #[cfg_attr(feature = "serde", serde(skip))]
    View(ClusterView),
    /// The distribution connection to a node was lost.
    NodeDown(String),
    /// Start nothing more.
    Cancel,
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Action {
    /// Start an attempt.
    Start {
        /// Which server.
        id: ServerId,
        /// Towards which node.
        #[cfg_attr(feature = "serde", serde(with = "crate::shape::text"))]
        target: Arc<str>,
        /// Attempt number, starting at 1.
        attempt: u32,
        /// How long it may take.
        #[cfg_attr(feature = "serde", serde(with = "crate::shape::millis"))]
        timeout: Micros,
    },
    /// Clear the reservation of a displaced server that is given up.
    Release {
        /// Which server.
        id: ServerId,
    },
    /// The drain is over. The last action.
    Finish,
}

/// The answer to a poll.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Poll {
    /// To be done, in this order.
    pub actions: Vec<Action>,
    /// When to poll again at the latest; `None`: after the next event.
    pub wake: Option<Micros>,
}

/// An event the engine did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Configuration, servers or view are not valid; nothing was changed.
    #[error("{}", problems.join("; "))]
    Invalid {
        /// Each problem, a sentence.
        problems: Vec<String>,
    },
    /// The server is not in a state in which this can happen: a duplicate, or an answer to something never asked.
    #[error("server {} expects no such event now", id.0)]
    Unexpected {
        /// Which server.
        id: ServerId,
    },
    /// The drain is over.
    #[error("the drain is over")]
    Finished,
}
