//! The attempts of one drain that are in flight, and the gaps of its servers.
//!
//! Guarantee: a gap is measured as in the engine's report: from the start of the attempt that stopped the
//! server until the server was moved. There is one entry for each server that is in an attempt or stopped, so
//! at most the engine's ceiling.

use std::collections::BTreeMap;

use handoff_core::ServerId;
use handoff_core::event::Outcome;
use handoff_core::time::Micros;

#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// For each server the number and the start time of the attempt in flight.
    under_way: BTreeMap<ServerId, (u32, Micros)>,
    /// Servers that run nowhere at the moment, with the start of the attempt that stopped them.
    stopped: BTreeMap<ServerId, Micros>,
}

impl Attempts {
    pub(super) fn started(&mut self, id: ServerId, attempt: u32, now: Micros) {
        self.under_way.insert(id, (attempt, now));
    }

    /// Records the end of an attempt that the engine knows. Returns the gap if the attempt moved the server.
    pub(super) fn ended(&mut self, id: ServerId, attempt: u32, outcome: &Outcome, now: Micros) -> Option<Micros> {
        let &(under_way, started) = self.under_way.get(&id)?;
        if under_way != attempt {
            return None;
        }
        self.under_way.remove(&id);
        match outcome {
            Outcome::Moved { .. } => Some(now.since(self.stopped.remove(&id).unwrap_or(started))),
            Outcome::Displaced(_)
            | Outcome::RetrySame
            | Outcome::Stopping
            | Outcome::NotStored
            | Outcome::StopFailed => {
                self.stopped.entry(id).or_insert(started);
                None
            }
            Outcome::Gone | Outcome::LostRace | Outcome::NotStorable => {
                self.stopped.remove(&id);
                None
            }
            Outcome::Untouched(_) => None,
        }
    }

    /// Removes a server that was given up and whose reservation was cleared.
    pub(super) fn released(&mut self, id: ServerId) {
        self.stopped.remove(&id);
    }

    /// Records the end of the drain: from now on only attempts in flight matter, because other drains wait
    /// for them.
    pub(super) fn over(&mut self) {
        self.stopped.clear();
    }

    /// Returns and removes all attempts in flight.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (ServerId, u32)> + use<> {
        std::mem::take(&mut self.under_way).into_iter().map(|(id, (attempt, _))| (id, attempt))
    }
}

#[cfg(test)]
mod tests {
    use handoff_core::event::Blame;

    use super::*;

    const MS: fn(u64) -> Micros = Micros::from_millis;
    const ID: ServerId = ServerId(3);

    #[test]
    fn a_gap_begins_with_the_attempt_that_stopped_the_server_not_with_the_one_that_moved_it() {
        let mut attempts = Attempts::default();
        attempts.started(ID, 1, MS(100));
        assert_eq!(attempts.ended(ID, 1, &Outcome::Untouched(Blame::Unknown), MS(150)), None, "it still ran");
        attempts.started(ID, 2, MS(200));
        assert_eq!(attempts.ended(ID, 2, &Outcome::Displaced(Blame::Target), MS(250)), None);
        attempts.started(ID, 3, MS(300));
        assert_eq!(attempts.ended(ID, 3, &Outcome::Moved { node: None }, MS(360)), Some(MS(160)));
        attempts.started(ID, 4, MS(400));
        assert_eq!(attempts.ended(ID, 4, &Outcome::Moved { node: None }, MS(410)), Some(MS(10)), "nothing is kept");
    }

    #[test]
    fn an_outcome_of_another_attempt_counts_no_gap() {
        let mut attempts = Attempts::default();
        attempts.started(ID, 2, MS(0));
        assert_eq!(attempts.ended(ID, 1, &Outcome::Moved { node: None }, MS(5)), None);
        assert_eq!(attempts.take().collect::<Vec<_>>(), [(ID, 2)]);
    }

    #[test]
    fn servers_that_were_given_up_or_ended_are_removed() {
        let mut attempts = Attempts::default();
        for (id, last) in [(ServerId(1), Outcome::Gone), (ServerId(2), Outcome::LostRace)] {
            attempts.started(id, 1, MS(0));
            attempts.ended(id, 1, &Outcome::Stopping, MS(1));
            attempts.started(id, 2, MS(2));
            attempts.ended(id, 2, &last, MS(3));
        }
        attempts.started(ID, 1, MS(0));
        attempts.ended(ID, 1, &Outcome::RetrySame, MS(1));
        attempts.released(ID);
        assert_eq!((attempts.stopped.len(), attempts.under_way.len()), (0, 0));
    }
}
