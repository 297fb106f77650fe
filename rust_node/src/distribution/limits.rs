//! Every bound of the distribution layer, with its reason.
//!
//! Guarantee: one peer can make this node hold at most [`Limits::max_frame`] (being read) +
//! [`Limits::inbound`] (received, not handled yet) + [`Limits::write_queue`] (queued, not sent yet) bytes,
//! plus one decoded message (at most 16 MB, see `etf::check`). Peers without the cookie can make it hold
//! [`Limits::handshakes`] sockets for [`Limits::handshake_timeout`].

use std::time::Duration;

/// See the module documentation. `durable-handoff-node` runs with the defaults; tests shorten them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest frame. Our own messages stay below 64 KB; a view of a hundred nodes with long lists may be
    /// longer.
    pub max_frame: usize,
    /// Bytes of one peer's messages that wait to be handled. Above this the peer's socket is not read.
    pub inbound: usize,
    /// Bytes that wait to be sent to one peer. Above this the peer is dropped, because it does not read.
    pub write_queue: usize,
    /// The most incoming handshakes at a time.
    pub handshakes: usize,
    /// The time from accept or dial to the end of the handshake, TLS included.
    pub handshake_timeout: Duration,
    pub peers: usize,
    /// Monitors that one peer may have on processes here.
    pub monitors: usize,
    /// A peer that sends nothing for this long is dropped. It may differ from the peers' `net_ticktime`.
    pub tick_time: Duration,
    /// The first and the longest pause between attempts to dial a node.
    pub backoff: (Duration, Duration),
    /// How often connected nodes are asked which nodes they know.
    pub discovery: Duration,
    /// Failed attempts after which a discovered node is forgotten.
    pub forget_after: u32,
    /// The most known nodes, connected or not.
    pub known: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_frame: 1024 * 1024,
            inbound: 4 * 1024 * 1024,
            write_queue: 8 * 1024 * 1024,
            handshakes: 64,
            handshake_timeout: Duration::from_secs(5),
            peers: 1_000,
            monitors: 10_000,
            tick_time: Duration::from_secs(60),
            backoff: (Duration::from_millis(250), Duration::from_secs(10)),
            discovery: Duration::from_secs(10),
            forget_after: 5,
            known: 2_000,
        }
    }
}
