//! Connects to one node: addresses, port, TCP connection, TLS, handshake.
//!
//! Guarantee: all steps together take at most [`super::Limits::handshake_timeout`].

use std::fmt;
use std::io;
use std::net::IpAddr;

use tokio::time::timeout;

use super::cause::Cause;
use super::connection;
use super::epmd::{self, PortMapperError};
use super::handshake::{self, HandshakeError, Prefix};
use super::hosts;
use super::listener::label;
use super::names::Seed;
use super::node::Node;
use super::resolve;
use super::tls;
use crate::metrics::Metrics;

/// The most addresses of one host that are tried.
const ADDRESSES: usize = 8;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    #[error("host {host}: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("{source}")]
    PortMapper {
        #[from]
        source: PortMapperError,
    },
    #[error("port {port} of {host}: {source}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("{source}")]
    Handshake {
        #[from]
        source: HandshakeError,
    },
    #[error("no answer in time from {at}")]
    Timeout { at: Step },
    /// This node does not accept the connection.
    #[error("not allowed, connected otherwise meanwhile, or as many connections as there may be")]
    NotTaken,
}

/// The steps of a dial, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    #[default]
    Resolve,
    PortMapper,
    Port,
    Tls,
    Handshake,
    Flags,
    Cookie,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Step::Resolve => "DNS",
            Step::PortMapper => "EPMD",
            Step::Port => "the node's port",
            Step::Tls => "the node's TLS",
            Step::Handshake | Step::Flags | Step::Cookie => "the node's handshake",
        })
    }
}

#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub step: Step,
    pub addresses: Vec<IpAddr>,
    pub port: Option<u16>,
}

impl DialError {
    /// The cause, or `None` when an operator can do nothing about it.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            DialError::Resolve { .. } | DialError::Timeout { at: Step::Resolve } => Some(Cause::Dns),
            DialError::PortMapper { source } => Some(Cause::of_port_mapper(source)),
            DialError::Timeout { at: Step::PortMapper } => Some(Cause::Epmd),
            DialError::Connect { .. } | DialError::Timeout { at: Step::Port } => Some(Cause::Port),
            DialError::Handshake { source } => Cause::of_handshake(source),
            // A node without TLS reads the start of a TLS record as the length of a long message and waits
            // for the rest.
            DialError::Timeout { at: Step::Tls } => Some(Cause::Tls),
            DialError::Timeout { .. } => Some(Cause::Handshake),
            DialError::NotTaken => None,
        }
    }

    /// The step at which a dial failed, given the last step that it has `reached`.
    pub fn step(&self, reached: Step) -> Step {
        match self.cause() {
            Some(Cause::Cookie) => Step::Cookie,
            Some(Cause::Flags) => Step::Flags,
            // With TLS 1.3 the peer refuses a certificate after our side has completed the TLS handshake.
            Some(Cause::Tls | Cause::Certificate) => Step::Tls,
            _ => reached,
        }
    }
}

/// Connects to a node.
pub async fn dial(node: &Node, seed: &Seed) -> Result<(), DialError> {
    dial_traced(node, seed, &mut Trace::default()).await
}

/// Connects to a node, and records the steps in `trace`.
pub async fn dial_traced(node: &Node, seed: &Seed, trace: &mut Trace) -> Result<(), DialError> {
    let text = seed.name.to_string();
    if !node.options().allow.allows(&text) {
        return Err(DialError::NotTaken);
    }
    let _dialling = Dialling::begin(node, text);
    let limit = node.options().limits.handshake_timeout;
    let in_time = timeout(limit, reach(node, seed, trace)).await;
    let outcome = in_time.unwrap_or(Err(DialError::Timeout { at: trace.step }));
    let kind = match &outcome {
        Ok(()) => "dialled",
        Err(DialError::Handshake { source }) => label(source),
        Err(DialError::PortMapper { .. }) => "epmd",
        Err(DialError::Resolve { .. } | DialError::Connect { .. }) => "io",
        Err(DialError::Timeout { .. }) => "timeout",
        Err(DialError::NotTaken) => "not_taken",
    };
    Metrics::count(&node.options().metrics.handshakes, kind);
    outcome
}

async fn reach(node: &Node, seed: &Seed, trace: &mut Trace) -> Result<(), DialError> {
    let options = node.options();
    let (name, host) = (&seed.name, seed.name.host());
    let resolved = resolve::resolve(host).await;
    let mut addresses = resolved.map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
    addresses.truncate(ADDRESSES);
    trace.addresses.clone_from(&addresses);
    let port = match seed.port.or(options.dist_port) {
        Some(port) => port,
        None => {
            trace.step = Step::PortMapper;
            epmd::lookup(host, &addresses, options.epmd_port, name.name()).await?
        }
    };
    (trace.step, trace.port) = (Step::Port, Some(port));
    let connected = hosts::connect(&addresses, port).await;
    let stream = connected.map_err(|source| DialError::Connect { host: host.to_owned(), port, source })?;
    stream.set_nodelay(true).map_err(HandshakeError::from)?;
    let taken = match &options.tls {
        None => {
            trace.step = Step::Handshake;
            let (stream, peer) = handshake::connect(stream, Prefix::Two, &options.local, name).await?;
            connection::start(node, stream, &peer, node.new_number())
        }
        Some(tls) => {
            trace.step = Step::Tls;
            let host = tls::server_name(host).map_err(HandshakeError::from)?;
            let stream = tls.connector().connect(host, stream).await.map_err(HandshakeError::from)?;
            trace.step = Step::Handshake;
            let (stream, peer) = handshake::connect(stream, Prefix::Four, &options.local, name).await?;
            connection::start(node, stream, &peer, node.new_number())
        }
    };
    taken.map_err(|_| DialError::NotTaken)
}

/// A dial in progress, registered so that an incoming connection of the same node can be compared with it.
struct Dialling<'a> {
    node: &'a Node,
    name: String,
}

impl<'a> Dialling<'a> {
    fn begin(node: &'a Node, name: String) -> Self {
        node.begin_dialling(&name);
        Dialling { node, name }
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.node.end_dialling(&self.name);
    }
}
