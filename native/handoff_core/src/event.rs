//! Events and actions: the protocol between the engine and the caller that runs the attempts.
//!
//! Guarantee: these types are the engine's only input and output. It reads no clock, no registry and no
//! store.

use std::sync::Arc;

use crate::ids::ServerId;
use crate::time::Micros;
use crate::view::ClusterView;

/// The cause of a failed attempt. It decides what is avoided next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Blame {
    /// The target refused, or is full, not ready, unreachable or too slow. It rests, and another one is
    /// tried.
    Target,
    /// The server itself failed to start there. This server tries another target; other servers still use
    /// this one.
    Server,
    /// The object store: fewer attempts run in parallel. If the store serves other targets, this one's access
    /// to it is broken.
    Store,
    /// Unknown. Another target is tried for this server.
    Unknown,
}

/// The result of an attempt, as `DurableHandoff.Host.Outcome` derives it from DurableServer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Outcome {
    /// The server runs elsewhere: on the attempt's target, or on the named node if another node started it
    /// there.
    Moved {
        /// The node, if it is not the target.
        node: Option<String>,
    },
    /// The server is stopped, but the target's registry does not know that yet. The same target is tried
    /// again soon.
    RetrySame,
    /// The server was told to stop and has not ended yet. [`Event::Stopped`] follows when it has.
    Stopping,
    /// The server is stopped and reserved for the source. It runs nowhere until it is started or released.
    Displaced(Blame),
    /// The attempt changed nothing: the server still runs at the source, or is still displaced.
    Untouched(#[cfg_attr(feature = "serde", serde(deserialize_with = "crate::shape::blame_or_unknown"))] Blame),
    /// The server has ended, so there is nothing to move.
    Gone,
    /// Another node owns the server. No reservation is left.
    LostRace,
    /// The server was stopped, but its final write failed: the changes since its last sync are lost. It runs
    /// nowhere until it is started.
    NotStored,
    /// The server's own code failed before its final write. For the server this is the same as
    /// [`Outcome::NotStored`], but it is not a failure of the store.
    StopFailed,
    /// The server's state cannot be stored even though the store works. So the server was not stopped.
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
        /// The number of the attempt, as in [`Action::Start`].
        attempt: u32,
        /// How.
        outcome: Outcome,
        /// How long the attempt took, measured where it ran.
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
    /// The drain is cancelled: nothing more starts.
    Cancel,
    /// The drain ends after this time at the latest. An earlier deadline stays.
    #[cfg_attr(feature = "serde", serde(skip))]
    EndWithin(Micros),
    /// The Rust node that decided is lost. A rebalance starts nothing more; a drain goes on.
    #[cfg_attr(feature = "serde", serde(skip))]
    CoordinatorLost,
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
