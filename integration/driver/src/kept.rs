//! The lowest value that a server's counter may have at the end. Pure.
//!
//! An acknowledged increment may be lost in one case only: it was not meant to be stored before it was
//! answered, and the server's process was cut off before it could store its state (its node was killed, or
//! DurableServer ended the process). Even then the counter is no lower than the last stored one: that of an
//! answered sync, of a graceful stop, or of the start of a later process.

use std::collections::BTreeMap;

use crate::beam::commands::{Calls, Counter};
use crate::history::{End, Key, Life};

/// Whether the last write of a server that stops gracefully is reliable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalWrites {
    /// It is. A lost write is a fault.
    Count,
    /// The store fails writes at random, for longer than a shutdown lasts. DurableServer still stops the
    /// server.
    MayFail,
    /// The store is down for a while. Writes of servers that are stopping then may fail; the report of the
    /// drain counts them.
    FailAsReported,
}

/// The lowest counter that a server with these lives may have in the end.
pub fn floor(key: Key, lives: &[Life], calls: &Calls, writes: FinalWrites) -> u64 {
    let acknowledged = calls.acknowledged.get(&key).copied().unwrap_or(0);
    let kept = calls.kept.get(&key).copied().unwrap_or(0);
    let orderly = |life: &Life| life.end != Some(End::CutOff);
    if writes == FinalWrites::Count && lives.iter().all(orderly) {
        return acknowledged;
    }
    let stored = |life: &Life| match life.end {
        Some(End::Stopped(counter)) if writes == FinalWrites::Count => counter.max(life.found),
        _ => life.found,
    };
    lives.iter().map(stored).fold(kept, u64::max)
}

/// How many servers have a lower counter than they would have if every final write had been stored.
pub fn set_back(counters: &[Counter], lives: &BTreeMap<Key, Vec<Life>>, calls: &Calls) -> u64 {
    let of_one = |key: Key| lives.get(&key).map_or(&[][..], Vec::as_slice);
    let behind =
        |counter: &&Counter| counter.value < floor(counter.key, of_one(counter.key), calls, FinalWrites::Count);
    counters.iter().filter(behind).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::NodeId;

    const KEY: Key = 7;

    fn life(found: u64, end: Option<End>) -> Life {
        Life { node: NodeId(0), init_us: 100, end_us: end.map(|_| 200), found, end }
    }

    fn calls(acknowledged: u64, kept: u64) -> Calls {
        let mut calls = Calls::default();
        calls.acknowledged.insert(KEY, acknowledged);
        calls.kept.insert(KEY, kept);
        calls
    }

    #[test]
    fn a_server_that_always_stopped_gracefully_keeps_every_answered_increment() {
        let lives = [life(0, Some(End::Stopped(40))), life(40, None)];
        assert_eq!(floor(KEY, &lives, &calls(55, 10), FinalWrites::Count), 55);
    }

    #[test]
    fn a_server_that_was_killed_keeps_the_increments_stored_before() {
        let killed = Some(End::CutOff);
        assert_eq!(floor(KEY, &[life(0, killed), life(10, None)], &calls(55, 30), FinalWrites::Count), 30);
        // A counter that a graceful stop stored before counts too, and so does the one that a later process
        // read.
        let moved_first = [life(0, Some(End::Stopped(40))), life(40, killed), life(40, None)];
        assert_eq!(floor(KEY, &moved_first, &calls(55, 30), FinalWrites::Count), 40);
        let found = [life(0, killed), life(45, killed), life(45, None)];
        assert_eq!(floor(KEY, &found, &calls(55, 30), FinalWrites::Count), 45);
    }

    #[test]
    fn a_server_whose_last_write_failed_keeps_the_synced_increments() {
        let lives = [life(20, Some(End::Stopped(40))), life(30, None)];
        assert_eq!(floor(KEY, &lives, &calls(40, 30), FinalWrites::FailAsReported), 30);
        let counters = |value| [Counter { key: KEY, value, node: None, intact: true }];
        let all_lives = BTreeMap::from([(KEY, lives.to_vec())]);
        assert_eq!([39, 40].map(|value| set_back(&counters(value), &all_lives, &calls(40, 30))), [1, 0]);
    }

    #[test]
    fn a_store_that_fails_at_random_loses_at_most_the_last_write() {
        let lives = [life(20, Some(End::Stopped(40))), life(20, None)];
        assert_eq!(floor(KEY, &lives, &calls(55, 30), FinalWrites::MayFail), 30);
    }
}
