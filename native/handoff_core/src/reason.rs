//! Why a server was not moved: the one list of reasons, with the code each has wherever results travel as bytes.
//!
//! Guarantee: a name or a code once given is never given to another reason (tests pin them).

/// Why a server was left to the existing graceful shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Reason {
    /// No other healthy, connected node that is not draining itself.
    NoTarget = 1,
    /// There are such nodes, but the server's sticky rules allow none of them now.
    StickyLocked = 2,
    /// There are allowed nodes, but each is at a capacity or resource limit.
    Capacity = 3,
    /// The time of the drain was over.
    Deadline = 4,
    /// Too many attempts of this drain failed; the breaker ended it.
    Failures = 5,
    /// The user's policy excludes it. Set by the host; the engine never sees such servers.
    Excluded = 6,
    /// Its own attempts failed: as many as allowed, or on every target there is.
    AttemptsExhausted = 7,
    /// Another node started it, or wrote its object.
    LostRace = 8,
    /// It had stopped by itself before it could be moved.
    Gone = 9,
    /// The drain was cancelled.
    Cancelled = 10,
    /// No node that could take it has its module: another release runs there.
    ModuleMissing = 11,
    /// It was stopped and its final write failed: it starts again from its last sync.
    StateNotStored = 12,
    /// Its state cannot be stored: it was left running.
    NotStorable = 13,
    /// A rebalance did not have to move it: its node keeps its share.
    Kept = 14,
    /// It came here only lately. Set by the host of a rebalance; the engine never sees such servers.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_stay_what_they_are() {
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
