//! Which connection to a peer is kept, and how connections end.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::limits::Limits;
use super::super::peers::NotTaken;
use super::super::testing::{PEER, connect, node};
use super::*;

/// A time limit that no test reaches.
const LONG: Duration = Duration::from_secs(120);

fn connected(node: &Node, name: &str, id: u64) -> DuplexStream {
    let (peer, taken) = connect(node, name, id);
    assert_eq!(taken, Ok(()));
    peer
}

async fn ended(mut stream: DuplexStream) {
    assert_eq!(stream.read(&mut [0; 1]).await.expect("the end, not an error"), 0);
}

fn frame(byte: u8) -> Vec<u8> {
    vec![byte; 1_000]
}

#[tokio::test]
async fn a_new_connection_of_a_peer_replaces_the_earlier_one() {
    let node = node(Limits::default());
    let first = connected(&node, PEER, 1);
    let _second = connected(&node, PEER, 2);
    ended(first).await;
    assert_eq!(node.lock().peers.id(PEER), Some(2));
}

/// The tasks of two handshakes may finish in either order.
#[tokio::test]
async fn the_newest_connection_of_a_peer_stays_when_an_earlier_one_finishes_late() {
    let node = node(Limits::default());
    let _second = connected(&node, PEER, 2);
    let (first, taken) = connect(&node, PEER, 1);
    assert_eq!(taken, Err(NotTaken::Outdated));
    ended(first).await;
    assert_eq!(node.lock().peers.id(PEER), Some(2));
    assert!(node.connected(PEER).is_some_and(|end| !end.is_cancelled()));
}

#[tokio::test]
async fn a_connection_above_the_limit_is_refused() {
    let node = node(Limits { peers: 1, ..Limits::default() });
    let _one = connected(&node, "one@127.0.0.1", 1);
    let (other, taken) = connect(&node, "other@127.0.0.1", 2);
    assert_eq!(taken, Err(NotTaken::TooMany));
    ended(other).await;
    let (_again, taken) = connect(&node, "one@127.0.0.1", 3);
    assert_eq!(taken, Ok(()), "a connected peer may connect again");
}

#[tokio::test]
async fn a_closing_node_sends_queued_frames_and_reads_until_the_peer_closes() {
    let node = node(Limits::default());
    let mut peer = connected(&node, PEER, 1);
    node.lock().peers.push(PEER, frame(7)).expect("queued");
    let closing = tokio::spawn({
        let node = node.clone();
        async move { node.close(LONG).await }
    });
    // The last message is unread, and the peer writes more than the connection buffers.
    peer.write_all(&[0; 4_096]).await.expect("the node reads on");
    let mut got = Vec::new();
    peer.read_to_end(&mut got).await.expect("the end, not an error");
    assert_eq!(got, frame(7));
    assert!(!closing.is_finished(), "until the peer has closed, too");
    drop(peer);
    closing.await.expect("closed");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_close_is_waited_for_no_longer_than_the_limit() {
    let node = node(Limits::default());
    let mut peer = connected(&node, PEER, 1);
    node.lock().peers.push(PEER, frame(7)).expect("queued");
    node.close(Duration::from_secs(2)).await;
    let mut got = Vec::new();
    peer.read_to_end(&mut got).await.expect("the end, not an error");
    assert!(got.len() < frame(7).len(), "it was cut off");
}

#[tokio::test]
async fn a_closing_node_accepts_no_connection() {
    let node = node(Limits::default());
    node.close(LONG).await;
    let (_peer, taken) = connect(&node, PEER, 1);
    assert_eq!(taken, Err(NotTaken::Stopped));
}

/// The connection is still registered, because its task has not run yet.
#[tokio::test]
async fn a_connection_that_ends_does_not_count_as_a_slow_reader() {
    let node = node(Limits::default());
    let _peer = connected(&node, PEER, 1);
    node.disconnect(PEER);
    assert_eq!(node.lock().peers.push(PEER, frame(7)), Err(SendError::NotConnected));
    assert!(!node.options().metrics.render().contains("slow_reader"));
}
