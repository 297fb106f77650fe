//! Events and actions: the protocol between the engine and the caller that runs the attempts.
//!
//! Guarantee: these types carry everything; the engine reads no clock, no registry and no store.

use std::sync::Arc;

use crate::ids::ServerId;
use crate::time::Micros;
use crate::view::ClusterView;

/// The cause of a failed attempt. It decides what is avoided next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Blame {
    /// The target refused, is full, not ready, unreachable or too slow: rest it, try another.
    Target,
    /// The server's own start failed there: this server tries another target, and other servers still use this one.
    Server,
    /// The object store: fewer attempts at a time. Of a target alone, if the store serves others.
    Store,
    /// Not known: try another target for this server.
    Unknown,
}

/// The result of an attempt, as `DurableHandoff.Host.Outcome` derives it from DurableServer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Outcome {
    /// It runs elsewhere: on the attempt's target, or on the named node if another node started it there.
    Moved {
        /// Where, if not on the target.
        node: Option<String>,
    },
    /// Stopped here, but the target's registry does not know that yet: try the same target again soon.
    RetrySame,
    /// Told to stop and not down yet; [`Event::Stopped`] follows when it is.
    Stopping,
    /// Stopped and reserved for the source: it runs nowhere until started or released.
    Displaced(Blame),
    /// The attempt changed nothing: it still runs at the source, or is still displaced.
    Untouched(#[cfg_attr(feature = "serde", serde(deserialize_with = "crate::shape::blame_or_unknown"))] Blame),
    /// It has ended, so there is nothing to move.
    Gone,
    /// Another owner has it; no reservation is left.
    LostRace,
    /// Stopped here, but its final write failed: it runs nowhere until it is started, and has lost the changes since its
    /// last sync.
    NotStored,
    /// Stopped here and ended by a fault of its own before its final write. For the server the same as [`Outcome::NotStored`]; it
    /// says nothing about the store.
    StopFailed,
    /// Its state cannot be stored, whatever the store does. It was not stopped for that.
    NotStorable,
}

/// An event, from the caller.
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
    /// A new view of the cluster.
    #[cfg_attr(feature = "serde", serde(skip))]
    View(ClusterView),
    /// The distribution connection to a node was lost.
    NodeDown(String),
    /// Start nothing more.
    Cancel,
}

/// An order, for the caller.
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
    /// The orders, to be executed in this order.
    pub actions: Vec<Action>,
    /// When to poll again at the latest; `None`: after the next event.
    pub wake: Option<Micros>,
}

/// Why the engine refused an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Configuration, servers or view are not valid; nothing was changed.
    #[error("{}", problems.join("; "))]
    Invalid {
        /// Each problem, a sentence.
        problems: Vec<String>,
    },
    /// The event does not fit the state of the server: it is a duplicate, or the result of an attempt that was not ordered.
    #[error("server {} expects no such event now", id.0)]
    Unexpected {
        /// Which server.
        id: ServerId,
    },
    /// The drain is over.
    #[error("the drain is over")]
    Finished,
}
