//! Every bound of the distribution layer, with its reason.
//!
//! Guarantee: what one peer can make this node hold is at most [`Limits::max_frame`] (being read) +
//! [`Limits::inbound`] (read, not yet looked at) + [`Limits::write_queue`] (written, not yet taken) bytes,
//! plus one decoded message (at most 16 MB, see `etf::check`); what strangers can make it hold is
//! [`Limits::handshakes`] sockets for [`Limits::handshake_timeout`].

use std::time::Duration;

/// See the module documentation. The defaults are what `durable-handoff-node` runs with; tests shorten them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest frame. Our own messages stay below 64 KB; a view of a hundred nodes with long lists may be
    /// longer.
    pub max_frame: usize,
    /// Bytes of one peer's messages waiting to be looked at; then its socket is not read until some are.
    pub inbound: usize,
    /// Bytes waiting to be sent to one peer; then it is dropped, because it does not read.
    pub write_queue: usize,
    /// Handshakes under way that others began.
    pub handshakes: usize,
    /// From accept or dial to the end of the handshake, TLS included.
    pub handshake_timeout: Duration,
    pub peers: usize,
    /// Monitors one peer may hold on processes here.
    pub monitors: usize,
    /// A peer that is silent for all of it is dropped. It need not be the peers' `net_ticktime`.
    pub tick_time: Duration,
    /// The first and the longest pause between attempts to dial a node.
    pub backoff: (Duration, Duration),
    /// How often connected nodes are asked which nodes they know.
    pub discovery: Duration,
    /// Failed attempts after which a discovered node is forgotten.
    pub forget_after: u32,
    /// Nodes known, connected or not.
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
