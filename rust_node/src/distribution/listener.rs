//! Accepts connections of other nodes.
//!
//! Guarantee: at most [`super::Limits::handshakes`] unauthenticated connections at a time, each for at most
//! [`super::Limits::handshake_timeout`]; more are closed at once. An existing connection is replaced only by
//! a peer that has proved it knows the cookie.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::cause::Cause;
use super::connection;
use super::handshake::{self, HandshakeError, Prefix};
use super::names;
use super::node::Node;
use super::troubles::Origin;
use crate::metrics::Metrics;

/// The pause after a failed accept, for example when the machine has no file descriptors left.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

pub async fn run(node: Node, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(node.options().limits.handshakes));
    loop {
        let accepted = tokio::select! {
            () = node.stopped().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // This happens ten times a second while there are no file descriptors left.
                if let Some(repeated) = node.note_mistake("", "accept") {
                    warn!(%error, repeated, "cannot accept");
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            Metrics::count(&node.options().metrics.handshakes, "too_many");
            continue;
        };
        let (node, id) = (node.clone(), node.new_number());
        tokio::spawn(async move {
            let limit = node.options().limits.handshake_timeout;
            // An IPv4 address, also if the listener accepts both families.
            let mut peer = address.ip().to_canonical().to_string();
            let kind = match timeout(limit, let_in(&node, stream, id, &mut peer)).await {
                Ok(Ok(())) => "accepted",
                Ok(Err(error)) => {
                    // A connection that ends before it has sent a name, and is not TLS, may be a probe of the port.
                    let cause = Cause::of_handshake(&error).filter(|cause| cause.is_misconfiguration());
                    let is_known = node.connected(&peer).is_some();
                    match cause.filter(|cause| *cause != Cause::Flags && !is_known) {
                        Some(cause) => node.troubles().note(&peer, cause, &error, Origin::Stranger),
                        None => not_let_in(&node, &address.ip().to_canonical().to_string(), &peer, &error),
                    }
                    label(&error)
                }
                Err(_) => "timeout",
            };
            drop(permit);
            Metrics::count(&node.options().metrics.handshakes, kind);
        });
    }
}

/// Logs a refused connection, at intervals for each address.
fn not_let_in(node: &Node, from: &str, peer: &str, error: &HandshakeError) {
    match node.note_mistake(from, label(error)) {
        Some(repeated) => info!(peer, %error, repeated, "peer not let in"),
        None => debug!(peer, %error, "peer not let in"),
    }
}

/// Sets `peer` to the name of the node when it has sent its name.
async fn let_in(node: &Node, stream: TcpStream, id: u64, peer: &mut String) -> Result<(), HandshakeError> {
    stream.set_nodelay(true)?;
    match &node.options().tls {
        None => shake(node, stream, Prefix::Two, id, peer).await,
        Some(tls) => shake(node, tls.acceptor().accept(stream).await?, Prefix::Four, id, peer).await,
    }
}

async fn shake<S>(node: &Node, stream: S, prefix: Prefix, id: u64, peer: &mut String) -> Result<(), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let named = handshake::accept(stream, prefix).await?;
    let local = &node.options().local;
    let name = named.name().to_string();
    peer.clone_from(&name);
    if *named.name() == local.name || !node.options().allow.allows(&name) {
        return Err(named.refuse("not_allowed").await);
    }
    if names::is_long(named.name()) != names::is_long(&local.name) {
        return Err(named.refuse_kind(&local.name).await);
    }
    let dialling = node.is_dialling(&name);
    let status = match dialling {
        // Both nodes dial each other: the attempt of the node with the greater name continues.
        true if local.name.to_string() > name => return Err(named.refuse("nok").await),
        true => "ok_simultaneous",
        false => "ok",
    };
    let (stream, peer) = named.let_in(status, local).await?;
    // A refusal is logged and counted there; the handshake itself succeeded.
    let _not_taken = connection::start(node, stream, &peer, id);
    Ok(())
}

pub(super) fn label(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::Io { .. } => "io",
        HandshakeError::TooLong { .. } => "too_long",
        HandshakeError::Unexpected { .. } => "unexpected",
        HandshakeError::Cookie => "cookie",
        HandshakeError::Refused { .. } => "refused",
        HandshakeError::Name { .. } => "name",
        HandshakeError::NameKind { .. } => "name_kind",
        HandshakeError::Flags => "flags",
        HandshakeError::NotLetIn { .. } => "not_let_in",
    }
}
