//! Attacks of a hostile or broken peer on the real process. Each test is named after the attack. In every
//! test the process keeps serving other peers, and a counter shows what happened.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::support::{COOKIE, LOOPBACK, Node, Peer, SOON, closed, eventually, node_name, still_serves};
use handoff_wire::{DrainId, Keepalive, Message, NODE_PROCESS};
use rust_node::distribution::handshake::HandshakeError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The most memory that one peer may use (`distribution::limits`): frame, allowance, write queue and one
/// decoded message, plus what the process needs anyway.
const BOUND: u64 = 64 * 1024 * 1024;

/// Runs each test over IPv4 and over IPv6.
macro_rules! over_both_families {
    ($($name:ident),* $(,)?) => {
        mod over_ipv4 {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::LOOPBACK[0]).await;
            })*
        }

        mod over_ipv6 {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::LOOPBACK[1]).await;
            })*
        }
    };
}

over_both_families! {
    a_frame_longer_than_the_limit,
    a_frame_of_an_unknown_type,
    every_hostile_term,
    an_unknown_control_message,
    a_wrong_cookie,
    a_wrong_cookie_does_not_end_the_connection_of_the_node_it_names,
    a_node_that_connects_again_replaces_its_own_connection,
    a_peer_that_stops_in_the_middle_of_the_handshake,
    two_hundred_half_open_handshakes,
    a_peer_that_does_not_read,
    a_peer_that_floods,
    a_name_that_is_not_on_the_allow_list,
    a_peer_that_does_not_read_while_the_node_stops,
    a_peer_that_never_reads_does_not_keep_the_node_from_stopping,
    a_name_that_says_that_it_is_longer_than_it_is,
    bytes_that_are_no_handshake,
    http_that_is_none_or_that_does_not_end,
}

async fn node_and_peer(host: IpAddr) -> (Node, Peer) {
    let node = Node::start_at(host, &[]);
    let peer = Peer::connect(&node).await;
    (node, peer)
}

async fn still_serves_in_bounds(mut node: Node) {
    still_serves(&mut node).await;
    assert!(node.memory() < BOUND, "{}", node.memory());
}

async fn a_frame_longer_than_the_limit(host: IpAddr) {
    let (node, mut peer) = node_and_peer(host).await;
    peer.stream.write_all(&[0xff; 4]).await.expect("sent");
    assert!(peer.receive().await.is_none(), "dropped");
    node.refused("frame_too_long", 1.0).await;
    still_serves_in_bounds(node).await;
}

async fn a_frame_of_an_unknown_type(host: IpAddr) {
    let (mut node, mut peer) = node_and_peer(host).await;
    peer.stream.write_all(&[0, 0, 0, 2, 131, 68]).await.expect("sent");
    assert!(peer.receive().await.is_none(), "dropped");
    node.refused("frame_type", 1.0).await;
    still_serves(&mut node).await;
}

/// Terms that would abort, overflow or inflate the decoder. The connection survives a well-formed one, which
/// is refused; a malformed one ends it.
async fn every_hostile_term(host: IpAddr) {
    let node = Node::start_at(host, &[]);
    let mut nested = vec![131];
    nested.extend([104, 1].repeat(100_000));
    nested.push(106);
    let mut bignum = vec![131, 111, 0, 1, 0, 0, 0];
    bignum.extend(vec![1; 65_536]);
    let mut many = vec![131, 108, 0, 12, 0, 0];
    many.extend(vec![106; 786_432 + 1]);
    let bomb = vec![131, 80, 0xff, 0xff, 0xff, 0xff, 0x78, 0x9c, 1, 2, 3];
    let well_formed: [(&str, Vec<u8>); 8] = [
        ("too_deep", nested),
        ("too_long", bignum),
        ("too_many_terms", many),
        ("tag", bomb),
        ("tag", vec![131, 68, 1, 0]),
        ("tag", vec![131, 82, 0]),
        ("tag", vec![131, 112, 0, 0, 0, 9, 1]),
        ("too_long", vec![131, 90, 0xff, 0xff, 119, 1, 97, 0, 0, 0, 1]),
    ];
    let mut peer = Peer::connect(&node).await;
    for (kind, payload) in well_formed {
        let series = format!("refused_total{{kind=\"{kind}\"}}");
        let before = node.metric(&series).await;
        peer.send_to(NODE_PROCESS, &payload).await.expect("sent");
        node.counted(&series, before + 1.0).await;
        assert!(peer.ping().await, "{kind}: refused, not dropped");
    }
    let broken: [(&str, Vec<u8>); 6] = [
        ("truncated", vec![131, 109, 0xff, 0xff, 0xff, 0xff]),
        ("truncated", vec![131, 108, 0xff, 0xff, 0xff, 0xff]),
        ("truncated", vec![131, 116, 0xff, 0xff, 0xff, 0xff]),
        ("version_byte", vec![130, 106]),
        ("bits", vec![131, 77, 0, 0, 0, 1, 0, 1]),
        ("bits", vec![131, 77, 0, 0, 0, 1, 9, 1]),
    ];
    for (kind, payload) in broken {
        let series = format!("refused_total{{kind=\"{kind}\"}}");
        let before = node.metric(&series).await;
        let mut peer = Peer::connect(&node).await;
        peer.send_to(NODE_PROCESS, &payload).await.expect("sent");
        assert!(peer.receive().await.is_none(), "{kind}: dropped");
        node.counted(&series, before + 1.0).await;
    }
    still_serves_in_bounds(node).await;
}

async fn an_unknown_control_message(host: IpAddr) {
    let (mut node, mut peer) = node_and_peer(host).await;
    peer.raw(&etf::tuple([etf::uint(99), etf::uint(1)]), &[]).await.expect("sent");
    node.refused("operation", 1.0).await;
    assert!(peer.ping().await, "refused, not dropped");
    peer.raw(&etf::atom("nonsense"), &[]).await.expect("sent");
    assert!(peer.receive().await.is_none(), "no conforming node sends that");
    still_serves(&mut node).await;
}

async fn a_wrong_cookie(host: IpAddr) {
    let mut node = Node::start_at(host, &[]);
    let refused = Peer::connect_as(&node, &node_name("peer"), "another").await;
    assert!(matches!(refused, Err(HandshakeError::Cookie)), "{:?}", refused.err());
    node.handshake("cookie").await;
    still_serves(&mut node).await;
}

async fn a_wrong_cookie_does_not_end_the_connection_of_the_node_it_names(host: IpAddr) {
    let (node, mut peer) = node_and_peer(host).await;
    let refused = Peer::connect_as(&node, &peer.name, "another").await;
    assert!(refused.is_err());
    assert!(peer.ping().await);
}

async fn a_node_that_connects_again_replaces_its_own_connection(host: IpAddr) {
    let node = Node::start_at(host, &[]);
    let mut first = Peer::connect(&node).await;
    let mut second = Peer::connect_as(&node, &first.name, COOKIE).await.expect("let in");
    assert!(first.receive().await.is_none(), "ended");
    assert!(second.ping().await);
}

async fn a_peer_that_stops_in_the_middle_of_the_handshake(host: IpAddr) {
    let mut node = Node::start_at(host, &[]);
    let mut stream = node.dial().await;
    stream.write_all(&[0, 50, b'N']).await.expect("sent");
    node.handshake("timeout").await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
    still_serves(&mut node).await;
}

async fn two_hundred_half_open_handshakes(host: IpAddr) {
    let node = Node::start_at(host, &[]);
    let mut connected = Peer::connect(&node).await;
    let (too_many, given_up) = ("handshakes_total{kind=\"too_many\"}", "handshakes_total{kind=\"timeout\"}");
    let mut half_open = Vec::new();
    for _ in 0..200 {
        half_open.push(node.dial().await);
    }
    eventually("some are turned away", async || node.metric(too_many).await > 0.0).await;
    assert!(connected.ping().await, "an earlier connection is still served");
    let all = half_open.len() as f64;
    let ended = async || node.metric(too_many).await + node.metric(given_up).await >= all;
    eventually("each was turned away or given up", ended).await;
    // The refusal is counted before its place becomes free.
    let own = node_name("peer");
    eventually("there is room again", async || Peer::connect_as(&node, &own, COOKIE).await.is_ok()).await;
    still_serves_in_bounds(node).await;
}

async fn a_name_that_says_that_it_is_longer_than_it_is(host: IpAddr) {
    let mut node = Node::start_at(host, &[]);
    let mut stream = node.dial().await;
    // Flags, creation, and a name of 65,535 bytes announced in a message of 20.
    let mut hello = vec![0, 20, b'N', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff];
    hello.extend([b'a'; 5]);
    stream.write_all(&hello).await.expect("sent");
    // The node sends an answer without a challenge, or resets the connection.
    let rest = closed(stream).await;
    assert!(rest.len() < 32, "{rest:?}");
    still_serves(&mut node).await;
}

async fn bytes_that_are_no_handshake(host: IpAddr) {
    let node = Node::start_at(host, &[]);
    let hello_of_tls: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    for bytes in
        [b"GET / HTTP/1.1\r\n\r\n".as_slice(), hello_of_tls, &[0xff; 4_096], &[0, 1, b'n'], &[0, 0], &[0, 1, 0]]
    {
        let mut stream = node.dial().await;
        stream.write_all(bytes).await.expect("sent");
        closed(stream).await;
    }
    still_serves_in_bounds(node).await;
}

async fn http_that_is_none_or_that_does_not_end(host: IpAddr) {
    let node = Node::start_at(host, &[]);
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 1 << 20]].concat();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    let length = b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n";
    for bytes in [&[0xff; 4_096][..], &[0, 20, b'N'], &endless, many.as_bytes(), length, b"GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = TcpStream::connect((node.address, node.http)).await.expect("accepted");
        // The node may close before all bytes are sent.
        let _refused = stream.write_all(bytes).await;
        let _closed = stream.shutdown().await;
        let answer = closed(stream).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect((node.address, node.http)).await.expect("accepted");
        stream.write_all(b"GET / HTTP/1.1\r\nX: ").await.expect("sent");
        held.push(stream);
    }
    assert!(node.get("/healthz").await.starts_with("HTTP/1.1 200"), "the others are served");
    still_serves_in_bounds(node).await;
}

async fn a_peer_that_does_not_read(host: IpAddr) {
    let (node, mut peer) = node_and_peer(host).await;
    // Far more bytes than may be queued.
    for _ in 0..100 {
        if peer.ask_for(900_000).await.is_err() {
            break;
        }
    }
    node.counted("peers_dropped_total{kind=\"slow_reader\"}", 1.0).await;
    still_serves_in_bounds(node).await;
}

async fn a_peer_that_floods(host: IpAddr) {
    let mut node = Node::start_at(host, &[]);
    let mut other = Peer::connect(&node).await;
    let mut peer = Peer::connect(&node).await;
    let message = Message::from(Keepalive { id: DrainId(9) }).to_bytes().expect("encodes");
    let payload = etf::encode(&etf::binary(vec![7; 1_000])).expect("encodes");
    // Some messages arrive even if the node is slow.
    for _ in 0..100 {
        peer.send_to(NODE_PROCESS, &payload).await.expect("sent");
    }
    let until = Instant::now() + Duration::from_secs(3);
    let mut highest = 0;
    // The test does not read the node's answers, so the node may also drop the peer for that.
    while Instant::now() < until {
        for _ in 0..200 {
            let sent = tokio::time::timeout(Duration::from_millis(100), async {
                peer.send_to(NODE_PROCESS, &payload).await?;
                peer.send_to(NODE_PROCESS, &message).await
            });
            if !matches!(sent.await, Ok(Ok(()))) {
                break;
            }
        }
        assert!(other.ping().await, "the others are served");
        highest = highest.max(node.memory());
    }
    node.refused("not_ours", 100.0).await;
    assert!(highest < BOUND, "{highest}");
    still_serves(&mut node).await;
}

async fn a_name_that_is_not_on_the_allow_list(host: IpAddr) {
    let mut node = Node::start_at(host, &["--allow", "peer_*@127.0.0.1"]);
    let refused = Peer::connect_as(&node, &node_name("stranger"), COOKIE).await;
    assert!(
        matches!(&refused, Err(HandshakeError::Refused { status }) if status == "not_allowed"),
        "{:?}",
        refused.err()
    );
    node.handshake("not_let_in").await;
    still_serves(&mut node).await;
}

/// After the first signal the node waits up to two seconds for frames queued for peers. A second signal ends
/// it at once.
async fn a_peer_that_does_not_read_while_the_node_stops(host: IpAddr) {
    let until = Instant::now() + SOON;
    loop {
        let mut node = Node::start_at(host, &[]);
        let _peer = peer_with_more_queued_than_sockets_hold(&node).await;
        node.process.signal("-TERM");
        node.process.line("drains are handed back");
        node.process.signal("-TERM");
        let code = node.process.exit_code();
        // The test may have been delayed for so long that the node had stopped waiting.
        if code == Some(0) && Instant::now() < until {
            continue;
        }
        assert_eq!(code, Some(1), "{:?}", node.process.every_line());
        break;
    }
}

async fn a_peer_that_never_reads_does_not_keep_the_node_from_stopping(host: IpAddr) {
    let mut node = Node::start_at(host, &[]);
    let _peer = peer_with_more_queued_than_sockets_hold(&node).await;
    node.process.signal("-TERM");
    assert_eq!(node.process.exit_code(), Some(0), "{:?}", node.process.every_line());
}

async fn peer_with_more_queued_than_sockets_hold(node: &Node) -> Peer {
    let socket = if node.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("set");
    let stream = socket.connect((node.address, node.port).into()).await.expect("accepted");
    let mut peer = Peer::connect_over(stream, node, &node_name("peer"), COOKIE).await.expect("let in");
    // More than both sockets hold, and less than the amount for which the node drops a peer.
    for _ in 0..8 {
        peer.ask_for(900_000).await.expect("sent");
    }
    peer.send_to(NODE_PROCESS, &etf::encode(&etf::atom("after_all_of_it")).expect("encodes")).await.expect("sent");
    node.refused("not_ours", 1.0).await;
    peer
}
