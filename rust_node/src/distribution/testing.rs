//! For unit tests of the layer: a node, and peers whose end of the connection the test holds.

use tokio::io::{DuplexStream, duplex};

use super::connection;
use super::cookie::Cookie;
use super::handshake::{Local, Peer, flags};
use super::limits::Limits;
use super::names;
use super::node::{Node, NodeOptions};
use super::peers::NotTaken;

pub(crate) const PEER: &str = "peer@127.0.0.1";
/// The bytes that a connection buffers. Tests send more, so the sender notices when nothing is read.
pub(super) const HOLDS: usize = 64;

pub(crate) fn node(limits: Limits) -> Node {
    let name = names::parse("rust@127.0.0.1").expect("a name");
    let local = Local { name, creation: 1, cookie: Cookie::new("a-test-cookie").expect("a cookie") };
    Node::new(NodeOptions::new(local, limits))
}

/// The other end of a connection of `peer`, made as the `id`th.
pub(super) fn connect(node: &Node, peer: &str, id: u64) -> (DuplexStream, Result<(), NotTaken>) {
    let (ours, theirs) = duplex(HOLDS);
    let peer = Peer { name: names::parse(peer).expect("a name"), flags: flags(), creation: 1 };
    (theirs, connection::start(node, ours, &peer, id))
}
