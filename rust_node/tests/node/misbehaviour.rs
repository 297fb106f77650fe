//! Mistakes of a connected peer in a drain. Each test is named after the mistake. In every test the process
//! keeps running, other drains are not affected, and a counter shows what happened.

use std::time::Instant;

use crate::support::{Node, Peer, SOON, still_serves};
use handoff_core::event::{Event, Outcome};
use handoff_core::limiter::Concurrency;
use handoff_core::time::Micros;
use handoff_core::{Action, Config, ModuleId, NodeView, ServerId, ServerSpec, Source, StickyId};
use handoff_wire::{
    DrainId, DrainOpen, DrainStart, Events, Keepalive, Message, NODE_PROCESS, Orders, Refuse, RefuseReason, Servers,
    ViewPart,
};

const ID: DrainId = DrainId(1);

async fn node_and_peer() -> (Node, Peer) {
    let node = Node::start(&[]);
    let peer = Peer::connect(&node).await;
    (node, peer)
}

fn open(peer: &Peer, count: u32) -> DrainOpen {
    DrainOpen {
        id: ID,
        drainer: peer.pid.clone(),
        supervisor: "Sup".to_owned(),
        storage: "store".to_owned(),
        count,
        modules: vec!["M".to_owned()],
        config: Config {
            // With a fixed limit, exactly one attempt starts for each one that ends.
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

/// The node has ended the drain: the machine has delayed the test for longer than a drain may be silent.
struct Silent;

/// Repeats a test whose drain was ended as silent.
async fn unless_silent(mut test: impl AsyncFnMut() -> Result<(), Silent>) {
    let until = Instant::now() + SOON;
    while test().await.is_err() {
        assert!(Instant::now() < until, "the drain was silent each time");
    }
}

/// Opens and starts a drain. Returns the ids and attempt numbers of the first orders.
async fn start(peer: &mut Peer, count: u32) -> Result<Vec<(ServerId, u32)>, Silent> {
    let start = DrainStart { id: ID, left_ms: 30_000 };
    peer.tell_all([open(peer, count).into(), servers(count as usize).into(), view().into(), start.into()]).await;
    orders(peer).await
}

/// Returns the next orders.
async fn orders(peer: &mut Peer) -> Result<Vec<(ServerId, u32)>, Silent> {
    loop {
        match peer.hear().await {
            Message::Orders(orders) => return Ok(started(&orders)),
            Message::Refuse(Refuse { reason: RefuseReason::Silent, .. }) => return Err(Silent),
            Message::Refuse(Refuse { reason, .. }) => panic!("refused: {reason}"),
            _ => {}
        }
    }
}

fn started(orders: &Orders) -> Vec<(ServerId, u32)> {
    let start = |action: &Action| match action {
        Action::Start { id, attempt, .. } => Some((*id, *attempt)),
        _ => None,
    };
    orders.actions.iter().filter_map(start).collect()
}

async fn refusal(peer: &mut Peer) -> RefuseReason {
    loop {
        if let Message::Refuse(Refuse { reason, .. }) = peer.hear().await {
            return reason;
        }
    }
}

#[tokio::test]
async fn a_message_of_a_newer_version_is_refused() {
    let (node, mut peer) = node_and_peer().await;
    let newer = etf::tuple([etf::atom("durable_handoff"), etf::uint(2), etf::atom("keepalive"), etf::uint(1)]);
    peer.send_to(NODE_PROCESS, &etf::encode(&newer).expect("encodes")).await.expect("sent");
    assert_eq!(refusal(&mut peer).await, RefuseReason::Version { got: 2, takes: 1 });
    node.refused("version", 1.0).await;
}

/// Thousands of messages of unknown kinds, as a later release might send them.
#[tokio::test]
async fn messages_of_an_unknown_kind_leave_room_for_other_refusals() {
    let (mut node, mut peer) = node_and_peer().await;
    let mut wrong = open(&peer, 1);
    wrong.config.max_attempts = 0;
    peer.tell(wrong).await;
    assert!(matches!(refusal(&mut peer).await, RefuseReason::Invalid { .. }));
    let later = etf::tuple([etf::atom("durable_handoff"), etf::uint(1), etf::atom("later"), etf::uint(1)]);
    let later = etf::encode(&later).expect("encodes");
    for _ in 0..1_000 {
        peer.send_to(NODE_PROCESS, &later).await.expect("sent");
    }
    match refusal(&mut peer).await {
        RefuseReason::Invalid { problems } => assert!(problems[0].contains("later"), "{problems:?}"),
        other => panic!("each is answered as invalid: {other}"),
    }
    node.refused("kind", 1_000.0).await;
    let status = node.json("/status").await;
    let why = |refused: &serde_json::Value| refused["why"].as_str().map(str::to_owned);
    let refused: Vec<_> = status["refused"].as_array().expect("a list").iter().filter_map(why).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("later"), "{refused:?}");
    still_serves(&mut node).await;
}

#[tokio::test]
async fn messages_out_of_order_end_their_drain() {
    let (mut node, mut peer) = node_and_peer().await;
    peer.tell_all([open(&peer, 10).into(), DrainStart { id: ID, left_ms: 1_000 }.into()]).await;
    assert!(matches!(refusal(&mut peer).await, RefuseReason::OutOfOrder { .. }));
    node.counted("drains_ended_total{kind=\"refused\"}", 1.0).await;
    still_serves(&mut node).await;
}

#[tokio::test]
async fn messages_for_an_unknown_drain_are_refused() {
    let (mut node, mut peer) = node_and_peer().await;
    peer.tell(Keepalive { id: ID }).await;
    assert_eq!(refusal(&mut peer).await, RefuseReason::UnknownDrain);
    node.refused("unknown_drain", 1.0).await;
    still_serves(&mut node).await;
}

#[tokio::test]
async fn duplicated_messages_change_nothing() {
    unless_silent(async || {
        let (node, mut peer) = node_and_peer().await;
        let (id, attempt) = start(&mut peer, 1_000).await?[0];
        let event = Event::Finished { id, attempt, outcome: Outcome::Moved { node: None }, latency: Micros(10) };
        let events = Events { id: ID, events: vec![event; 1_000] };
        peer.tell_all([events.into(), open(&peer, 1).into()]).await;
        // The two answers may arrive in either order.
        let (mut more, mut refused) = (None, false);
        while more.is_none() || !refused {
            match peer.hear().await {
                Message::Orders(orders) => more = more.or(Some(started(&orders).len())),
                Message::Refuse(Refuse { reason: RefuseReason::Duplicate, .. }) => refused = true,
                Message::Refuse(Refuse { reason: RefuseReason::Silent, .. }) => return Err(Silent),
                Message::Refuse(Refuse { reason, .. }) => panic!("refused: {reason}"),
                _ => {}
            }
        }
        assert_eq!(more, Some(1), "one permit was given back");
        node.refused("event", 999.0).await;
        assert!((node.metric("moved_total").await - 1.0).abs() < f64::EPSILON);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn messages_about_a_drain_of_another_node_are_refused() {
    unless_silent(async || {
        let node = Node::start(&[]);
        let mut other = Peer::connect(&node).await;
        let mut peer = Peer::connect(&node).await;
        let started = start(&mut peer, 1_000).await?;
        let finished = |(id, attempt): &(ServerId, u32)| Event::Finished {
            id: *id,
            attempt: *attempt,
            outcome: Outcome::Gone,
            latency: Micros(10),
        };
        other.tell(Events { id: ID, events: started.iter().map(finished).collect() }).await;
        assert_eq!(refusal(&mut other).await, RefuseReason::UnknownDrain);
        node.refused("unknown_drain", 1.0).await;
        let drains = node.get("/drains").await;
        if node.metric("drains_ended_total{kind=\"silent\"}").await > 0.0 {
            return Err(Silent);
        }
        assert!(drains.contains(&format!("\"in_flight\":{}", started.len())), "{drains}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_of_a_million_servers_uses_little_memory() {
    unless_silent(async || {
        let (node, mut peer) = node_and_peer().await;
        let before = node.memory();
        let count = 1_000_000;
        let mut open = open(&peer, count);
        // A drain that is not started within its time limit is dropped, too.
        open.config.timeout_ms = 3_600_000;
        peer.tell(open).await;
        for first in (0..count).step_by(5_000) {
            peer.tell(Servers { first, ..servers(5_000) }).await;
        }
        peer.tell(view()).await;
        peer.tell(DrainStart { id: ID, left_ms: 30_000 }).await;
        assert!(!orders(&mut peer).await?.is_empty());
        let grown = node.memory().saturating_sub(before);
        // The node keeps about 40 bytes per server, twice that while the engine is built.
        assert!(grown < 150 * 1024 * 1024, "{grown}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_drainer_that_falls_silent_is_told_that_its_drain_has_ended() {
    let (node, mut peer) = node_and_peer().await;
    if start(&mut peer, 1_000).await.is_ok() {
        assert_eq!(refusal(&mut peer).await, RefuseReason::Silent);
    }
    node.counted("drains_ended_total{kind=\"silent\"}", 1.0).await;
}
