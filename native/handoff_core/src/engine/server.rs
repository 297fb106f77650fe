//! The state of one server while it is neither pending nor decided, and its fate.
//!
//! Guarantee: a stage carries exactly what that stage needs; what is not in it cannot be used by mistake.

use crate::ids::NodeId;
use crate::limiter::Permit;
use crate::reason::Reason;
use crate::time::Micros;

/// Where an active server is.
#[derive(Debug)]
pub enum Stage {
    /// In an attempt.
    InFlight {
        /// Towards this node.
        target: NodeId,
        /// Since then.
        started: Micros,
        /// To be given back to the limiter.
        permit: Permit,
    },
    /// To be started at `ready` or later, on `pinned` if given.
    Displaced {
        /// The earliest start.
        ready: Micros,
        /// The node to try again, because its registry lagged. The ledger has a reserved slot for it there.
        pinned: Option<NodeId>,
    },
    /// Its attempt did nothing; it still runs at the source.
    Untouched {
        /// Tries again then.
        ready: Micros,
    },
    /// Told to stop, not down yet.
    Stopping,
    /// Given up; its reservation is being cleared.
    Releasing {
        /// Why.
        reason: Reason,
    },
}

/// An active server.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub stage: Stage,
    /// How often it was started.
    pub starts: u32,
    /// How many attempts count against `max_attempts`.
    pub charged: u32,
    /// How often its target's registry had not seen the stop yet.
    pub repeats: u32,
    /// Targets not to be tried again.
    pub excluded: Vec<NodeId>,
    /// The start of the attempt that stopped it; `None` while it runs at the source.
    pub stopped_at: Option<Micros>,
    /// Its place in the queue of displaced servers.
    pub displaced_at: Micros,
    /// How many attempts failed for the store's sake.
    pub store_failures: u32,
    /// When the last of them did.
    pub store_failed_at: Option<Micros>,
    /// The store refuses this server's object and serves others.
    pub refused: bool,
    /// Its final write failed: wherever it starts again, it was not moved.
    pub not_stored: bool,
}

impl Server {
    /// A server before its first attempt.
    pub fn new(now: Micros) -> Self {
        Server {
            stage: Stage::Untouched { ready: now },
            starts: 0,
            charged: 0,
            repeats: 0,
            excluded: Vec::new(),
            stopped_at: None,
            displaced_at: now,
            store_failures: 0,
            store_failed_at: None,
            refused: false,
            not_stored: false,
        }
    }

    /// Its fate if it ends with this reason. If its final write failed, only that counts, wherever it runs now.
    pub fn fate(&self, fate: Fate) -> Fate {
        if self.not_stored { Fate::Left(Reason::StateNotStored) } else { fate }
    }

    /// When it may be started, if it waits for that.
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
    /// Not known yet.
    Undecided,
    /// It runs elsewhere.
    Moved,
    /// It was left.
    Left(Reason),
}

impl Fate {
    /// As a result byte.
    pub const fn code(self) -> u8 {
        match self {
            Fate::Moved => 0,
            Fate::Left(reason) => reason.code(),
            Fate::Undecided => u8::MAX,
        }
    }
}
