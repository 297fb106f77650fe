//! What a peer that is let in can do wrong in a drain: each test is named after what it does. In every one the process stays up, the
//! drains of others are not touched, and a counter says what happened.

mod support;

use handoff_core::event::{Event, Outcome};
use handoff_core::limiter::Concurrency;
use handoff_core::time::Micros;
use handoff_core::{Config, ModuleId, NodeView, ServerId, ServerSpec, Source, StickyId};
use handoff_wire::{
    DrainId, DrainOpen, DrainStart, Events, Keepalive, Message, NODE_PROCESS, Refuse, RefuseReason, Servers, ViewPart,
    term,
};
use support::{Node, Peer, SOON, still_serves};

const ID: DrainId = DrainId(1);

fn open(peer: &Peer, count: u32) -> DrainOpen {
    DrainOpen {
        id: ID,
        drainer: peer.pid.clone(),
        supervisor: "Sup".to_owned(),
        storage: "store".to_owned(),
        count,
        modules: vec!["M".to_owned()],
        config: Config {
            // So that exactly one more starts for each that ends.
            concurrency: Concurrency::Fixed,
            max_concurrency: 8,
            source: Source { name: peer.name.clone(), ..Source::default() },
            ..Config::default()
        },
    }
}

fn servers(count: usize) -> Servers {
    let server = ServerSpec { module: ModuleId(0), sticky: StickyId(0), priority: 0 };
    Servers { id: ID, first: 0, servers: vec![server; count] }
}

fn view() -> ViewPart {
    let target = NodeView { name: "t@127.0.0.1".to_owned(), connected: true, ..NodeView::default() };
    ViewPart { id: ID, part: 1, parts: 1, now_ms: 0, nodes: vec![target] }
}

/// Opens and starts a drain; the ids and attempts it is told to start.
async fn start(peer: &mut Peer, count: u32) -> Vec<(ServerId, u32)> {
    peer.tell(open(peer, count)).await;
    peer.tell(servers(count as usize)).await;
    peer.tell(view()).await;
    peer.tell(DrainStart { id: ID, left_ms: 30_000 }).await;
    orders(peer).await
}

async fn orders(peer: &mut Peer) -> Vec<(ServerId, u32)> {
    loop {
        if let Message::Orders(orders) = peer.hear().await {
            return orders
                .actions
                .iter()
                .filter_map(|action| match action {
                    handoff_core::Action::Start { id, attempt, .. } => Some((*id, *attempt)),
                    _ => None,
                })
                .collect();
        }
    }
}

async fn refusal(peer: &mut Peer) -> RefuseReason {
    loop {
        if let Message::Refuse(Refuse { reason, .. }) = peer.hear().await {
            return reason;
        }
    }
}

#[tokio::test]
async fn a_message_of_a_newer_version() {
    let node = Node::start(&[]);
    let mut peer = Peer::connect(&node).await;
    let newer = term::tuple(vec![term::atom("durable_handoff"), term::uint(2), term::atom("keepalive"), term::uint(1)]);
    peer.send_to(NODE_PROCESS, &term::encode(&newer).expect("encodes")).await.expect("sent");
    assert_eq!(refusal(&mut peer).await, RefuseReason::Version { got: 2, takes: 1 });
    node.counted("durable_handoff_refused_total{kind=\"version\"}", 1.0).await;
}

#[tokio::test]
async fn messages_out_of_order() {
    let mut node = Node::start(&[]);
    let mut peer = Peer::connect(&node).await;
    peer.tell(open(&peer, 10)).await;
    peer.tell(DrainStart { id: ID, left_ms: 1_000 }).await;
    assert!(matches!(refusal(&mut peer).await, RefuseReason::OutOfOrder { .. }));
    node.counted("durable_handoff_drains_ended_total{kind=\"refused\"}", 1.0).await;
    still_serves(&mut node).await;
}

#[tokio::test]
async fn messages_for_an_unknown_drain() {
    let mut node = Node::start(&[]);
    let mut peer = Peer::connect(&node).await;
    peer.tell(Keepalive { id: ID }).await;
    assert_eq!(refusal(&mut peer).await, RefuseReason::UnknownDrain);
    node.counted("durable_handoff_refused_total{kind=\"unknown_drain\"}", 1.0).await;
    still_serves(&mut node).await;
}

#[tokio::test]
async fn duplicated_messages() {
    let node = Node::start(&[]);
    let mut peer = Peer::connect(&node).await;
    let (id, attempt) = start(&mut peer, 1_000).await[0];
    let event = Event::Finished { id, attempt, outcome: Outcome::Moved { node: None }, latency: Micros(10) };
    let events = Events { id: ID, events: vec![event; 1_000] };
    peer.tell(events).await;
    assert_eq!(orders(&mut peer).await.len(), 1, "one permit was given back");
    node.counted("durable_handoff_refused_total{kind=\"event\"}", 999.0).await;
    assert!((node.metric("durable_handoff_moved_total").await - 1.0).abs() < f64::EPSILON);
    peer.tell(open(&peer, 1)).await;
    assert_eq!(refusal(&mut peer).await, RefuseReason::Duplicate);
}

#[tokio::test]
async fn messages_from_another_node_than_the_drains() {
    let node = Node::start(&[]);
    let mut peer = Peer::connect(&node).await;
    let started = start(&mut peer, 1_000).await;
    let mut other = Peer::connect(&node).await;
    let finished = |(id, attempt): &(ServerId, u32)| Event::Finished {
        id: *id,
        attempt: *attempt,
        outcome: Outcome::Gone,
        latency: Micros(10),
    };
    other.tell(Events { id: ID, events: started.iter().map(finished).collect() }).await;
    assert_eq!(refusal(&mut other).await, RefuseReason::UnknownDrain);
    node.counted("durable_handoff_refused_total{kind=\"unknown_drain\"}", 1.0).await;
    let drains = node.get("/drains").await;
    assert!(drains.contains(&format!("\"in_flight\":{}", started.len())), "{drains}");
}

#[tokio::test]
async fn a_drain_of_a_million_servers_stays_small() {
    let node = Node::start(&[]);
    let mut peer = Peer::connect(&node).await;
    let before = node.memory();
    let count = 1_000_000;
    peer.tell(open(&peer, count)).await;
    for first in (0..count).step_by(5_000) {
        peer.tell(Servers { first, ..servers(5_000) }).await;
    }
    peer.tell(view()).await;
    peer.tell(DrainStart { id: ID, left_ms: 30_000 }).await;
    assert!(!orders(&mut peer).await.is_empty());
    let grown = node.memory().saturating_sub(before);
    // About 40 bytes a server are kept; twice that while the engine is built.
    assert!(grown < 150 * 1024 * 1024, "{grown}");
}

#[tokio::test]
async fn a_drainer_that_falls_silent_is_told_so() {
    let node = Node::start(&[]);
    let mut peer = Peer::connect(&node).await;
    start(&mut peer, 1_000).await;
    let reason = tokio::time::timeout(SOON, refusal(&mut peer)).await.expect("told");
    assert_eq!(reason, RefuseReason::Silent);
    node.counted("durable_handoff_drains_ended_total{kind=\"silent\"}", 1.0).await;
}
