use super::*;
use crate::distribution::names;

fn local(name: &str, cookie: &str) -> Local {
    Local { name: names::parse(name).expect("a name"), creation: 7, cookie: Cookie::new(cookie).expect("a cookie") }
}

async fn both(
    prefix: Prefix,
    client: &str,
    server: &str,
    expected: &str,
) -> (Result<Peer, HandshakeError>, Result<Peer, HandshakeError>) {
    let (near, far) = tokio::io::duplex(4_096);
    let (client, server) = (local("c@h", client), local("s@h", server));
    let expected = names::parse(expected).expect("a name");
    tokio::join!(async { connect(near, prefix, &client, &expected).await.map(|(_, peer)| peer) }, async {
        accept(far, prefix).await?.let_in("ok", &server).await.map(|(_, peer)| peer)
    })
}

#[tokio::test]
async fn both_sides_learn_the_peer_with_lengths_of_two_and_four_bytes() {
    for prefix in [Prefix::Two, Prefix::Four] {
        let (client, server) = both(prefix, "x", "x", "s@h").await;
        assert_eq!(client.expect("connected").name.to_string(), "s@h");
        let server = server.expect("accepted");
        assert_eq!((server.name.to_string().as_str(), server.creation, server.is_hidden()), ("c@h", 7, true));
    }
}

#[tokio::test]
async fn different_cookies_connect_neither_side() {
    let (client, server) = both(Prefix::Two, "x", "y", "s@h").await;
    assert!(matches!(client, Err(HandshakeError::Cookie)), "{client:?}");
    assert!(matches!(server, Err(HandshakeError::Cookie)), "{server:?}");
}

#[tokio::test]
async fn a_peer_with_another_name_than_the_one_dialled_is_refused() {
    let (client, _) = both(Prefix::Two, "x", "x", "other@h").await;
    assert!(matches!(client, Err(HandshakeError::Name { .. })), "{client:?}");
}

#[tokio::test]
async fn garbage_and_long_messages_are_refused_before_they_arrive_completely() {
    for bytes in [&b"\xff\xff"[..], b"\x00\x01N", b"\x00\x00", b"\x00\x05hello", b"\x00\x03n\x00\x05"] {
        assert!(accept(tokio::io::join(bytes, tokio::io::sink()), Prefix::Two).await.is_err(), "{bytes:?}");
    }
}

#[tokio::test]
async fn the_status_alive_is_answered_and_the_handshake_continues() {
    let (near, far) = tokio::io::duplex(4_096);
    let (client, server) = (local("c@h", "x"), local("s@h", "x"));
    let accepting = async {
        let mut named = accept(far, Prefix::Two).await?;
        named.wire.send(b"salive").await?;
        assert_eq!(named.wire.receive().await?, b"strue");
        // From here on the handshake is as after `ok`. The client does not wait for another status.
        let own: u32 = 9;
        let mut challenge = vec![b'N'];
        challenge.extend(flags().bits().to_be_bytes());
        challenge.extend(own.to_be_bytes());
        challenge.extend(1_u32.to_be_bytes());
        put_name(&mut challenge, &server.name);
        named.wire.send(&challenge).await?;
        let reply = named.wire.receive().await?;
        let theirs = u32::from_be_bytes([reply[1], reply[2], reply[3], reply[4]]);
        let mut acknowledgement = vec![b'a'];
        acknowledgement.extend(server.cookie.digest(theirs));
        named.wire.send(&acknowledgement).await
    };
    let (connected, accepted) = tokio::join!(connect(near, Prefix::Two, &client, &server.name), accepting);
    accepted.expect("the server's side");
    connected.expect("connected");
}
