//! How connections end.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::connection;
use super::super::cookie::Cookie;
use super::super::handshake::{Local, flags};
use super::super::limits::Limits;
use super::super::names::{self, AllowList};
use super::super::node::NodeOptions;
use super::*;

const PEER: &str = "peer@127.0.0.1";
/// No test waits for it.
const LONG: Duration = Duration::from_secs(120);

fn node() -> Node {
    let name = names::parse("rust@127.0.0.1").expect("a name");
    Node::new(NodeOptions {
        local: Local { name, creation: 1, cookie: Cookie::new("a-test-cookie").expect("a cookie") },
        limits: Limits::default(),
        allow: AllowList::default(),
        tls: None,
        epmd_port: 4369,
        metrics: Metrics::default(),
    })
}

/// The peer's end of a connection that holds so many bytes on their way.
fn connect(node: &Node, holds: usize) -> DuplexStream {
    let (ours, theirs) = duplex(holds);
    let peer = Peer { name: names::parse(PEER).expect("a name"), flags: flags(), creation: 1 };
    connection::start(node, ours, &peer, 1).expect("taken");
    theirs
}

fn frame(byte: u8) -> Vec<u8> {
    vec![byte; 1_000]
}

#[tokio::test]
async fn what_is_queued_goes_out_before_a_connection_closes_and_the_peer_is_read_until_it_does() {
    let node = node();
    let mut peer = connect(&node, 64);
    node.push_frame(&node.lock(), PEER, frame(7)).expect("queued");
    let closing = tokio::spawn({
        let node = node.clone();
        async move { node.close(LONG).await }
    });
    // Nobody reads what was sent last yet, and the peer still writes: more than the connection holds.
    peer.write_all(&[0; 4_096]).await.expect("the node reads on");
    let mut got = Vec::new();
    peer.read_to_end(&mut got).await.expect("the end, not an error");
    assert_eq!(got, frame(7));
    assert!(!closing.is_finished(), "until the peer has closed, too");
    drop(peer);
    closing.await.expect("closed");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_close_is_not_waited_for_any_longer_than_that() {
    let node = node();
    let mut peer = connect(&node, 64);
    node.push_frame(&node.lock(), PEER, frame(7)).expect("queued");
    node.close(Duration::from_secs(2)).await;
    let mut got = Vec::new();
    peer.read_to_end(&mut got).await.expect("the end, not an error");
    assert!(got.len() < frame(7).len(), "it was cut off");
}

#[tokio::test]
async fn a_node_that_closes_takes_no_connection() {
    let node = node();
    node.close(LONG).await;
    let (ours, _theirs) = duplex(64);
    let peer = Peer { name: names::parse(PEER).expect("a name"), flags: flags(), creation: 1 };
    assert_eq!(connection::start(&node, ours, &peer, 1), Err(NotTaken::Stopped));
}

/// It is not yet detached: its task has not come that far.
#[tokio::test]
async fn a_connection_that_ends_is_no_slow_reader() {
    let node = node();
    let _peer = connect(&node, 64);
    node.disconnect(PEER);
    assert_eq!(node.push_frame(&node.lock(), PEER, frame(7)), Err(SendError::NotConnected));
    assert!(!node.options().metrics.render().contains("slow_reader"));
}
