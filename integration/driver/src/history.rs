//! Derives the lives of every server, and its moves from one life to the next, from recorded events.
//!
//! A *life* is one process of one server: from its user `init` to its user `terminate/2`. All moments are
//! microseconds of the wall clock of one machine, taken inside the callbacks.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A node of one mode's cluster: its index in the order of starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A durable server: its number.
pub type Key = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// Its user `init` began.
    Init,
    /// Its user `terminate/2` began.
    Terminate,
    /// The process has ended gracefully, after it stored its state.
    Down,
    /// The process has ended because it failed or lost its object.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub node: NodeId,
    pub key: Key,
    /// Which process: its pid, unique on that node.
    pub process: String,
    pub moment: Moment,
    pub at_us: u64,
    /// The server's counter, at `Init` and `Terminate`.
    pub counter: u64,
}

/// A node's end, as the driver saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    pub node: NodeId,
    pub sigterm_us: u64,
    /// When its control connection was closed. Nothing runs there any more.
    pub gone_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub node: NodeId,
    /// Its user `init`.
    pub init_us: u64,
    /// When its user `terminate/2` began or, if that never ran, when the process or its node ended; `None`
    /// while it runs.
    pub end_us: Option<u64>,
    /// Its counter at its user `init`, which is the stored one.
    pub found: u64,
    pub end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Gracefully, with this counter, which DurableServer then stored.
    Stopped(u64),
    /// Killed with its node, or failed. Changes that it had not stored may be lost.
    CutOff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub key: Key,
    pub from: NodeId,
    pub to: NodeId,
    /// When it stopped answering.
    pub stopped_us: u64,
    pub started_us: u64,
}

impl Move {
    /// How long the server was unavailable; 0 for lives that overlap.
    pub fn gap_us(&self) -> u64 {
        self.started_us.saturating_sub(self.stopped_us)
    }
}

/// The lives of every server, each server's in order of `init`.
pub fn lives(records: &[Record], drains: &[Drain]) -> BTreeMap<Key, Vec<Life>> {
    let mut processes: BTreeMap<(Key, NodeId, &str), [Option<&Record>; 3]> = BTreeMap::new();
    for record in records {
        let moments = processes.entry((record.key, record.node, &record.process)).or_default();
        let slot = match record.moment {
            Moment::Init => 0,
            Moment::Terminate => 1,
            Moment::Down | Moment::Failed => 2,
        };
        moments[slot].get_or_insert(record);
    }

    let gone = |node| drains.iter().find(|drain| drain.node == node).map(|drain| drain.gone_us);
    let mut lives: BTreeMap<Key, Vec<Life>> = BTreeMap::new();
    for ((key, node, _), [init, terminate, down]) in processes {
        // A process without `init` raised before user code ran: there is nothing to measure.
        if let Some(init) = init {
            // A node that restarts has processes again after its end.
            let gone_us = || gone(node).filter(|gone_us| *gone_us >= init.at_us);
            let end_us = terminate.or(down).map(|record| record.at_us).or_else(gone_us);
            let end = match (terminate, down) {
                (Some(terminate), Some(down)) if down.moment == Moment::Down => End::Stopped(terminate.counter),
                _ => End::CutOff,
            };
            let found = init.counter;
            let life = Life { node, init_us: init.at_us, end_us, found, end: end_us.map(|_| end) };
            lives.entry(key).or_default().push(life);
        }
    }
    for of_one in lives.values_mut() {
        of_one.sort_by_key(|life| (life.init_us, life.node));
    }
    lives
}

/// Every step of a server from a life to the next, in order of stopping.
pub fn moves(lives: &BTreeMap<Key, Vec<Life>>) -> Vec<Move> {
    let mut moves: Vec<Move> = lives
        .iter()
        .flat_map(|(&key, of_one)| {
            of_one.windows(2).map(move |pair| Move {
                key,
                from: pair[0].node,
                to: pair[1].node,
                stopped_us: pair[0].end_us.unwrap_or(pair[1].init_us),
                started_us: pair[1].init_us,
            })
        })
        .collect();
    moves.sort_by_key(|step| (step.stopped_us, step.key));
    moves
}

/// How often a server started while another process of it had not stopped, so that one state had two owners.
pub fn double_owners(lives: &BTreeMap<Key, Vec<Life>>) -> usize {
    lives
        .values()
        .map(|of_one| {
            let mut busy_until = 0;
            let mut overlaps = 0;
            for life in of_one {
                overlaps += usize::from(busy_until > life.init_us);
                busy_until = busy_until.max(life.end_us.unwrap_or(u64::MAX));
            }
            overlaps
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);

    fn record(node: NodeId, process: &str, moment: Moment, at_us: u64) -> Record {
        Record { node, key: 7, process: process.into(), moment, at_us, counter: at_us / 10 }
    }

    #[test]
    fn a_move_lasts_from_terminate_to_the_next_init() {
        // Two nodes have recorded these, so they are not in order.
        let records = [
            record(B, "<0.9.0>", Moment::Init, 250),
            record(A, "<0.5.0>", Moment::Down, 230),
            record(A, "<0.5.0>", Moment::Init, 100),
            record(A, "<0.5.0>", Moment::Terminate, 200),
        ];
        let lives = lives(&records, &[]);
        let moves = moves(&lives);
        assert_eq!(moves, [Move { key: 7, from: A, to: B, stopped_us: 200, started_us: 250 }]);
        assert_eq!(moves[0].gap_us(), 50);
        assert_eq!(double_owners(&lives), 0);
    }

    #[test]
    fn a_process_that_never_terminated_ends_with_itself_or_its_node() {
        let drain = Drain { node: A, sigterm_us: 150, gone_us: 300 };
        let killed = [record(A, "<0.5.0>", Moment::Init, 100), record(A, "<0.5.0>", Moment::Down, 180)];
        let life = |end_us, end| Life { node: A, init_us: 100, end_us, found: 10, end };
        assert_eq!(lives(&killed, &[drain])[&7], [life(Some(180), Some(End::CutOff))]);

        let cut_off = [record(A, "<0.5.0>", Moment::Init, 100)];
        assert_eq!(lives(&cut_off, &[drain])[&7], [life(Some(300), Some(End::CutOff))]);
        assert_eq!(lives(&cut_off, &[])[&7], [life(None, None)]);
    }

    #[test]
    fn a_process_on_a_node_that_is_back_after_a_restart_runs_on() {
        let drain = Drain { node: A, sigterm_us: 150, gone_us: 300 };
        let life = Life { node: A, init_us: 400, end_us: None, found: 40, end: None };
        assert_eq!(lives(&[record(A, "<0.9.0>", Moment::Init, 400)], &[drain])[&7], [life]);
    }

    #[test]
    fn only_a_process_that_ended_in_order_has_stored_its_last_counter() {
        let until = |last| {
            let moments = [Moment::Init, Moment::Terminate, last].into_iter().zip([100, 200, 230]);
            let records: Vec<_> = moments.map(|(moment, at_us)| record(A, "<0.5.0>", moment, at_us)).collect();
            lives(&records, &[])[&7][0].end
        };
        assert_eq!(until(Moment::Down), Some(End::Stopped(20)));
        assert_eq!(until(Moment::Failed), Some(End::CutOff));
    }

    #[test]
    fn a_second_owner_is_seen_when_the_first_stops_later_or_never() {
        let mut records = vec![
            record(A, "<0.5.0>", Moment::Init, 100),
            record(A, "<0.5.0>", Moment::Terminate, 300),
            record(B, "<0.9.0>", Moment::Init, 250),
        ];
        assert_eq!(double_owners(&lives(&records, &[])), 1);
        assert_eq!(moves(&lives(&records, &[]))[0].gap_us(), 0);

        records.remove(1);
        assert_eq!(double_owners(&lives(&records, &[])), 1);
    }

    #[test]
    fn a_short_second_owner_does_not_hide_the_third() {
        let records = [
            record(A, "<0.5.0>", Moment::Init, 100),
            record(A, "<0.5.0>", Moment::Terminate, 900),
            record(B, "<0.6.0>", Moment::Init, 200),
            record(B, "<0.6.0>", Moment::Terminate, 210),
            record(B, "<0.7.0>", Moment::Init, 500),
        ];
        assert_eq!(double_owners(&lives(&records, &[])), 2);
    }

    #[test]
    fn the_same_pid_on_two_nodes_is_two_processes() {
        let records = [
            record(A, "<0.5.0>", Moment::Init, 100),
            record(A, "<0.5.0>", Moment::Terminate, 200),
            record(B, "<0.5.0>", Moment::Init, 240),
        ];
        assert_eq!(lives(&records, &[])[&7].len(), 2);
    }
}
