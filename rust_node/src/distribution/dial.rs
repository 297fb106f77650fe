//! Connecting to one node: its addresses, its port, the connection, TLS, the handshake.
//!
//! Guarantee: all of it together takes at most [`super::Limits::handshake_timeout`].

use std::io;

use tokio::time::timeout;

use super::connection;
use super::epmd::{self, PortMapperError};
use super::handshake::{self, HandshakeError, Prefix};
use super::hosts;
use super::listener::label;
use super::names::Seed;
use super::node::Node;
use super::tls;
use crate::metrics::Metrics;

/// Addresses of one host that are tried.
const ADDRESSES: usize = 8;

/// Why a node was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// DNS knows no address of its host.
    #[error("host {host}: {source}")]
    Resolve { host: String, source: io::Error },
    /// The port mapper of its machine.
    #[error("{source}")]
    PortMapper {
        /// What it said.
        #[from]
        source: PortMapperError,
    },
    /// Its port is known and does not accept a connection.
    #[error("port {port} of {host}: {source}")]
    Connect { host: String, port: u16, source: io::Error },
    #[error("{source}")]
    Handshake {
        #[from]
        source: HandshakeError,
    },
    /// It took too long.
    #[error("no connection in time")]
    Timeout,
    /// This node does not take it.
    #[error("not allowed, connected otherwise meanwhile, or as many connections as there may be")]
    NotTaken,
}

/// Connects to a node.
///
/// # Errors
/// [`DialError`].
pub async fn dial(node: &Node, seed: &Seed) -> Result<(), DialError> {
    let text = seed.name.to_string();
    if !node.options().allow.allows(&text) {
        return Err(DialError::NotTaken);
    }
    let _dialling = Dialling::begin(node, text);
    let limit = node.options().limits.handshake_timeout;
    let outcome = timeout(limit, reach(node, seed)).await.unwrap_or(Err(DialError::Timeout));
    let kind = match &outcome {
        Ok(()) => "dialled",
        Err(DialError::Handshake { source }) => label(source),
        Err(DialError::PortMapper { .. }) => "epmd",
        Err(DialError::Resolve { .. } | DialError::Connect { .. }) => "io",
        Err(DialError::Timeout) => "timeout",
        Err(DialError::NotTaken) => "not_taken",
    };
    Metrics::count(&node.options().metrics.handshakes, kind);
    outcome
}

async fn reach(node: &Node, seed: &Seed) -> Result<(), DialError> {
    let options = node.options();
    let (name, host) = (&seed.name, seed.name.host());
    let mut addresses =
        hosts::resolve(host).await.map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
    addresses.truncate(ADDRESSES);
    let port = match seed.port.or(options.dist_port) {
        Some(port) => port,
        None => epmd::lookup(host, &addresses, options.epmd_port, name.name()).await?,
    };
    let connected = hosts::connect(&addresses, port).await;
    let stream = connected.map_err(|source| DialError::Connect { host: host.to_owned(), port, source })?;
    stream.set_nodelay(true).map_err(HandshakeError::from)?;
    let taken = match &options.tls {
        None => {
            let (stream, peer) = handshake::connect(stream, Prefix::Two, &options.local, name).await?;
            connection::start(node, stream, &peer, node.new_number())
        }
        Some(tls) => {
            let host = tls::server_name(host).map_err(HandshakeError::from)?;
            let stream = tls.connector.connect(host, stream).await.map_err(HandshakeError::from)?;
            let (stream, peer) = handshake::connect(stream, Prefix::Four, &options.local, name).await?;
            connection::start(node, stream, &peer, node.new_number())
        }
    };
    taken.map_err(|_| DialError::NotTaken)
}

/// A dial under way, so that an accept of the same node knows of it.
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
