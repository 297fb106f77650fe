//! The state of one server while it is neither pending nor decided, and its fate.
//!
//! Guarantee: each stage has exactly the data that the stage needs.

use crate::ids::NodeId;
use crate::limiter::Permit;
use crate::reason::Reason;
use crate::time::Micros;

/// The stage of an active server.
#[derive(Debug)]
pub enum Stage {
    /// An attempt is in flight.
    InFlight {
        /// The target of the attempt.
        target: NodeId,
        /// The start of the attempt.
        started: Micros,
        /// The permit to return to the limiter.
        permit: Permit,
    },
    /// The server is stopped, or still runs at the source after an attempt that changed nothing and has a place among the
    /// servers that may be down. It starts at `ready` or later, on `pinned` if that is given.
    Displaced {
        /// The earliest start.
        ready: Micros,
        /// The node to try again, because its registry lagged. The ledger has a reserved slot for the server
        /// there.
        pinned: Option<NodeId>,
    },
    /// The attempt changed nothing, and the server still runs at the source.
    Untouched {
        /// The earliest next attempt.
        ready: Micros,
    },
    /// The server was told to stop and has not ended yet.
    Stopping,
    /// The server was given up, and its reservation is being cleared.
    Releasing {
        /// Why the server was given up.
        reason: Reason,
    },
}

/// An active server.
#[derive(Debug)]
pub struct Server {
    /// The current stage.
    pub stage: Stage,
    /// The number of attempts.
    pub starts: u32,
    /// The number of attempts that count against `max_attempts`.
    pub charged: u32,
    /// The target whose registry had not received the stop at the last attempt there, and how many times.
    pub lagged: Option<(NodeId, u32)>,
    /// Targets that must not be tried again.
    pub excluded: Vec<NodeId>,
    /// The start of the attempt that stopped the server; `None` while the server runs at the source.
    pub stopped_at: Option<Micros>,
    /// The server's place in the queue of displaced servers.
    pub displaced_at: Micros,
    /// The number of attempts that failed because of the store.
    pub store_failures: u32,
    /// When the last of these failed.
    pub store_failed_at: Option<Micros>,
    /// Whether the store refuses this server's object while it serves other objects.
    pub refused: bool,
    /// Whether the final write failed. Then the server does not count as moved wherever it starts again.
    pub not_stored: bool,
}

impl Server {
    /// A server before its first attempt.
    pub fn new(now: Micros) -> Self {
        Server {
            stage: Stage::Untouched { ready: now },
            starts: 0,
            charged: 0,
            lagged: None,
            excluded: Vec::new(),
            stopped_at: None,
            displaced_at: now,
            store_failures: 0,
            store_failed_at: None,
            refused: false,
            not_stored: false,
        }
    }

    /// The server's fate if it ends with this reason. A failed final write takes precedence.
    pub fn fate(&self, fate: Fate) -> Fate {
        if self.not_stored { Fate::Left(Reason::StateNotStored) } else { fate }
    }

    /// Whether the server runs at the source and waits for its next attempt.
    pub fn waits_running(&self) -> bool {
        self.ready().is_some() && self.stopped_at.is_none()
    }

    /// The earliest start, for a server that waits for one.
    pub fn ready(&self) -> Option<Micros> {
        match self.stage {
            Stage::Displaced { ready, .. } | Stage::Untouched { ready } => Some(ready),
            _ => None,
        }
    }
}

/// The fate of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Undecided.
    Undecided,
    /// The server runs elsewhere.
    Moved,
    /// The server was left.
    Left(Reason),
}

impl Fate {
    /// The fate as a result byte.
    pub const fn code(self) -> u8 {
        match self {
            Fate::Moved => 0,
            Fate::Left(reason) => reason.code(),
            Fate::Undecided => u8::MAX,
        }
    }
}
