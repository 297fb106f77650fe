//! The reasons why a server was not moved, each with the code that it has in bytes.
//!
//! Guarantee: a name or a code is never given to another reason (tests pin them).

/// Why a server was left to DurableServer's graceful shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Reason {
    /// No other node is healthy, connected and not draining.
    NoTarget = 1,
    /// Such nodes exist, but the server's sticky rules allow none of them now.
    StickyLocked = 2,
    /// Allowed nodes exist, but each is at a capacity or resource limit.
    Capacity = 3,
    /// The time limit of the drain was reached.
    Deadline = 4,
    /// Too many attempts of this drain failed, and the breaker ended the drain.
    Failures = 5,
    /// The user's policy excludes the server. The library sets this reason; the engine never gets such
    /// servers.
    Excluded = 6,
    /// The server's own attempts failed: as many as allowed, or on every target.
    AttemptsExhausted = 7,
    /// Another node started the server, or wrote its object.
    LostRace = 8,
    /// The server had stopped by itself before it could be moved.
    Gone = 9,
    /// The drain was cancelled.
    Cancelled = 10,
    /// No node that could take the server has its module, because another release runs there.
    ModuleMissing = 11,
    /// The server was stopped and its final write failed. It starts again from its last sync.
    StateNotStored = 12,
    /// The server's state cannot be stored, so it was left running.
    NotStorable = 13,
    /// A rebalance did not have to move the server: it belongs to its node's share.
    Kept = 14,
    /// The server arrived recently. The library sets this reason; the engine never gets such servers.
    MovedLately = 15,
}

impl Reason {
    /// Every reason, in the order of the codes.
    pub const ALL: [Reason; 15] = [
        Reason::NoTarget,
        Reason::StickyLocked,
        Reason::Capacity,
        Reason::Deadline,
        Reason::Failures,
        Reason::Excluded,
        Reason::AttemptsExhausted,
        Reason::LostRace,
        Reason::Gone,
        Reason::Cancelled,
        Reason::ModuleMissing,
        Reason::StateNotStored,
        Reason::NotStorable,
        Reason::Kept,
        Reason::MovedLately,
    ];

    /// The code used in result bytes and wire messages.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name, the same in Rust, Elixir, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::NoTarget => "no_target",
            Reason::StickyLocked => "sticky_locked",
            Reason::Capacity => "capacity",
            Reason::Deadline => "deadline",
            Reason::Failures => "failures",
            Reason::Excluded => "excluded",
            Reason::AttemptsExhausted => "attempts_exhausted",
            Reason::LostRace => "lost_race",
            Reason::Gone => "gone",
            Reason::Cancelled => "cancelled",
            Reason::ModuleMissing => "module_missing",
            Reason::StateNotStored => "state_not_stored",
            Reason::NotStorable => "not_storable",
            Reason::Kept => "kept",
            Reason::MovedLately => "moved_lately",
        }
    }

    /// Whether a server that was left for this reason was to move. The others stay by policy, as part of their
    /// node's share or because they have just arrived, or have ended by themselves.
    pub const fn was_to_move(self) -> bool {
        !matches!(self, Reason::Excluded | Reason::Kept | Reason::MovedLately | Reason::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_do_not_change() {
        let pinned: Vec<(u8, &str)> = Reason::ALL.iter().map(|reason| (reason.code(), reason.name())).collect();
        assert_eq!(
            pinned,
            [
                (1, "no_target"),
                (2, "sticky_locked"),
                (3, "capacity"),
                (4, "deadline"),
                (5, "failures"),
                (6, "excluded"),
                (7, "attempts_exhausted"),
                (8, "lost_race"),
                (9, "gone"),
                (10, "cancelled"),
                (11, "module_missing"),
                (12, "state_not_stored"),
                (13, "not_storable"),
                (14, "kept"),
                (15, "moved_lately"),
            ]
        );
    }
}
