//! Rebalances on one storage share a coordinator and a ledger, and drains take precedence.

use std::collections::BTreeMap;

use handoff_core::{Balance, Goal, Idle, Reason};
use handoff_wire::RebalanceOpen;

use super::*;

/// Servers by node.
type Counts<'a> = &'a [(&'a str, u64)];

fn rebalance(peer: &str, count: u32) -> RebalanceOpen {
    let config = Config { goal: Goal::Rebalance, ..config(peer) };
    RebalanceOpen(DrainOpen { config, ..open(peer, count) })
}

fn counted(now: Micros, counts: Counts<'_>) -> ViewPart {
    let now_ms = i64::try_from(now.as_millis()).expect("soon");
    let node = |(name, servers): &(&str, u64)| NodeView {
        name: (*name).to_owned(),
        connected: true,
        servers: Some(*servers),
        stamp_ms: now_ms,
        ..NodeView::default()
    };
    ViewPart { id: ID, part: 1, parts: 1, now_ms, nodes: counts.iter().map(node).collect() }
}

fn begin(service: &mut Service, now: Micros, peer: &str, counts: Counts<'_>) -> Vec<Message> {
    let own = counts.iter().find(|(name, _)| *name == peer).map_or(0, |(_, servers)| *servers);
    let own = u32::try_from(own).expect("few");
    assert_eq!(tell(service, now, peer, rebalance(peer, own)), [Opened { id: ID }.into()]);
    tell(service, now, peer, servers(0, own));
    tell(service, now, peer, counted(now, counts));
    tell(service, now, peer, DrainStart { id: ID, left_ms: 30_000 })
}

fn report(messages: &[Message]) -> Option<Balance> {
    messages.iter().find_map(|message| match message {
        Message::Report(message) => message.report.balance.clone(),
        _ => None,
    })
}

/// Three nodes with servers and one without, and the servers in flight between them.
struct Cluster {
    service: Service,
    moved: BTreeMap<&'static str, u64>,
    under_way: Vec<(&'static str, (ServerId, u32, String))>,
}

impl Cluster {
    const SOURCES: [(&'static str, u64); 3] = [("a@h", 134), ("b@h", 133), ("c@h", 133)];

    /// The current number of servers of each node.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        let left = |(peer, servers)| (peer, servers - self.moved.get(peer).copied().unwrap_or(0));
        Self::SOURCES.into_iter().map(left).chain([("d@h", self.moved.values().sum())]).collect()
    }

    /// Lets `count` of the servers in flight arrive. Others follow.
    fn arrive(&mut self, now: Micros, count: usize) {
        for (peer, (id, attempt, target)) in self.under_way.drain(..count).collect::<Vec<_>>() {
            assert_eq!(target, "d@h");
            *self.moved.entry(peer).or_insert(0) += 1;
            let moved = finished(id, attempt, Outcome::Moved { node: None });
            self.service.receive(now, &name(peer), None, moved.into());
            self.service.advance(now);
            let outputs = self.service.take_outputs();
            for (peer, _) in Self::SOURCES {
                let more = starts(&sent_to(outputs.clone(), peer));
                self.under_way.extend(more.into_iter().map(|start| (peer, start)));
            }
        }
    }
}

#[test]
fn sources_that_begin_one_after_the_other_move_no_more_than_the_total_excess() {
    let mut cluster = Cluster { service: service(), moved: BTreeMap::new(), under_way: Vec::new() };
    for (round, (peer, _)) in (1..).zip(Cluster::SOURCES) {
        let now = MS(10 * round);
        let counts = cluster.counts();
        let begun = begin(&mut cluster.service, now, peer, &counts);
        cluster.under_way.extend(starts(&begun).into_iter().map(|start| (peer, start)));
        // The next source begins while some of these servers are in flight.
        let half = cluster.under_way.len() / 2;
        cluster.arrive(now + MS(1), half);
    }
    while !cluster.under_way.is_empty() {
        cluster.arrive(MS(40), 1);
    }
    let counts: Vec<u64> = cluster.counts().into_iter().map(|(_, servers)| servers).collect();
    assert!(counts.iter().all(|servers| (95..=103).contains(servers)), "{counts:?}");
    assert!(counts[3] <= 100, "{counts:?}");
}

#[test]
fn a_drain_stops_the_rebalances_on_its_storage() {
    let counts = [("a@h", 100), ("b@h", 0)];
    let mut service = service();
    let first = starts(&begin(&mut service, MS(0), "a@h", &counts));
    assert_eq!(first.len(), 8);
    start(&mut service, MS(1), "b@h", 10, &["a@h"]);
    let mut answers = Vec::new();
    for (id, attempt, _) in first {
        answers.extend(tell(&mut service, MS(2), "a@h", finished(id, attempt, Outcome::Moved { node: None })));
    }
    assert_eq!(starts(&answers), []);
    let balance = report(&answers).expect("it is over");
    assert_eq!((balance.idle, balance.excess), (Some(Idle::NodeDraining), 50));
    let kept = Reason::Kept.name();
    assert!(service.ended(MS(2)).iter().all(|ended| !ended.left.contains_key(kept)), "they were never meant to move");
}

#[test]
fn a_drain_that_is_forgotten_blocks_no_rebalance() {
    let mut service = service();
    start(&mut service, MS(0), "b@h", 10, &["c@h"]);
    tell(&mut service, MS(0), "b@h", DrainClose { id: ID });
    assert_eq!(starts(&begin(&mut service, MS(0), "a@h", &[("a@h", 100), ("d@h", 0)])).len(), 8);
}

#[test]
fn a_rebalance_that_is_forgotten_leaves_nothing_in_flight() {
    let counts = [("a@h", 100), ("b@h", 0)];
    let mut service = service();
    assert_eq!(starts(&begin(&mut service, MS(0), "a@h", &counts)).len(), 8);
    tell(&mut service, MS(1), "a@h", DrainClose { id: ID });
    let answers = begin(&mut service, MS(0), "a@h", &counts);
    assert_eq!(starts(&answers).len(), 8);
    let storage = service.storages.get_mut("store").expect("known");
    let (names, ledger) = (&storage.shared.names, &storage.shared.ledger);
    let [source, target] = ["a@h", "b@h"].map(|name| names.get(name).expect("known"));
    let leaves = ledger.leaves(source).expect("it is under way");
    assert_eq!((leaves.now, leaves.at_the_end, ledger.promised(target)), (92.0, 50.0, 42));
}
