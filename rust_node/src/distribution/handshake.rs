//! The distribution handshake, version 6 (OTP 23 and later), as client and as server.
//!
//! Guarantee: each phase consumes the one before, so phases cannot run out of order. No message is longer
//! than [`LONGEST`]. Digests are compared in constant time. A connection is returned only after the peer has
//! proved that it knows the cookie. The caller sets the time limit.
//!
//! ```text
//!   client                      server
//!   send name ────────────────▶ receive name      → the server decides: allowed? already connected?
//!   receive status ◀─────────── send status
//!   receive challenge ◀──────── send challenge
//!   send reply ───────────────▶ receive reply     → the client knows the cookie
//!   receive acknowledgement ◀── send acknowledgement → so does the server
//! ```
//!
//! `erl_dist`'s handshake is not used: it cannot continue after the status `alive`, has no size limit, and
//! writes only the 2-byte lengths of plain TCP, where TLS has 4.

mod wire;

use erl_dist::DistributionFlags;
use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};

use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};

use super::cookie::Cookie;
use super::names::{self, NodeName};
use wire::{Fields, Wire, put_name};

/// The longest message. A name has at most 255 bytes; all other messages are shorter.
pub const LONGEST: usize = 1_024;

/// The width of the length before a handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    Two,
    /// TLS (`inet_tls_dist`).
    Four,
}

#[derive(Debug, Clone)]
pub struct Local {
    pub name: NodeName,
    pub creation: u32,
    pub cookie: Cookie,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub name: NodeName,
    pub flags: DistributionFlags,
    pub creation: u32,
}

impl Peer {
    pub fn is_hidden(&self) -> bool {
        !self.flags.contains(DistributionFlags::PUBLISHED)
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    #[error("{source}")]
    Io {
        #[from]
        source: std::io::Error,
    },
    #[error("a handshake message of {length} bytes")]
    TooLong { length: usize },
    #[error("expected {expected}")]
    Unexpected { expected: &'static str },
    #[error("the peer has another cookie")]
    Cookie,
    #[error("the peer answers {status:?}")]
    Refused {
        /// The status that the peer sent, cut to 64 bytes.
        status: String,
    },
    /// The name is malformed, or is not the one that was dialled.
    #[error("peer name: {problem}")]
    Name { problem: String },
    #[error("{peer} and {own} are a long and a short name")]
    NameKind { peer: NodeName, own: NodeName },
    #[error("the peer lacks what OTP 25 requires")]
    Flags,
    #[error("not let in: {status}")]
    NotLetIn { status: &'static str },
}

/// This node's capability flags: no distribution header, no fragments, no remote spawn. The OTP documentation explains
/// each flag. Exit reasons come as payloads, so that a reason that is not accepted does not hide the exit itself.
pub fn flags() -> DistributionFlags {
    DistributionFlags::mandatory()
        | DistributionFlags::DIST_MONITOR
        | DistributionFlags::DIST_MONITOR_NAME
        | DistributionFlags::ALIAS
        | DistributionFlags::EXIT_PAYLOAD
}

fn required() -> DistributionFlags {
    DistributionFlags::HANDSHAKE_23
        | DistributionFlags::EXTENDED_REFERENCES
        | DistributionFlags::EXTENDED_PIDS_PORTS
        | DistributionFlags::UTF8_ATOMS
        | DistributionFlags::BIG_CREATION
        | DistributionFlags::NEW_FLOATS
}

/// Connects: runs the client's side on a fresh stream to the node called `expected`.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    prefix: Prefix,
    local: &Local,
    expected: &NodeName,
) -> Result<(S, Peer), HandshakeError> {
    let mut wire = Wire { stream, prefix };
    let mut name = vec![b'N'];
    name.extend(flags().bits().to_be_bytes());
    name.extend(local.creation.to_be_bytes());
    put_name(&mut name, &local.name);
    wire.send(&name).await?;

    let status = wire.receive().await?;
    match status.split_first() {
        Some((b's', b"ok" | b"ok_simultaneous")) => {}
        // The peer still holds an old connection of ours, which the new one replaces.
        Some((b's', b"alive")) => wire.send(b"strue").await?,
        Some((b's', other)) => {
            let status = String::from_utf8_lossy(other).chars().take(64).collect();
            return Err(HandshakeError::Refused { status });
        }
        _ => return Err(HandshakeError::Unexpected { expected: "a status" }),
    }

    let message = wire.receive().await?;
    let mut fields = Fields { left: &message, expected: "a challenge of version 6" };
    fields.tag(b'N')?;
    let flags = DistributionFlags::from_bits_truncate(fields.u64()?);
    let challenge = fields.u32()?;
    let creation = fields.u32()?;
    let peer = Peer { name: fields.name()?, flags, creation };
    if names::is_long(&peer.name) != names::is_long(&local.name) {
        return Err(HandshakeError::NameKind { peer: peer.name, own: local.name.clone() });
    }
    if peer.name != *expected {
        return Err(HandshakeError::Name { problem: format!("dialled {expected}, answers {}", peer.name) });
    }
    if !flags.contains(required()) {
        return Err(HandshakeError::Flags);
    }

    let own_challenge: u32 = rand::random();
    let mut reply = vec![b'r'];
    reply.extend(own_challenge.to_be_bytes());
    reply.extend(local.cookie.digest(challenge));
    wire.send(&reply).await?;

    let message = wire.receive().await.map_err(|error| match error {
        // A BEAM that finds the digest wrong closes the connection without a message.
        HandshakeError::Io { source } if matches!(source.kind(), UnexpectedEof | ConnectionReset | BrokenPipe) => {
            HandshakeError::Cookie
        }
        other => other,
    })?;
    let mut fields = Fields { left: &message, expected: "an acknowledgement" };
    fields.tag(b'a')?;
    verify(&local.cookie, own_challenge, fields.left)?;
    Ok((wire.stream, peer))
}

/// The server's side after the peer has sent its name.
#[derive(Debug)]
pub struct Named<S> {
    wire: Wire<S>,
    peer: Peer,
}

/// Accepts: reads the name that the peer claims.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S, prefix: Prefix) -> Result<Named<S>, HandshakeError> {
    let mut wire = Wire { stream, prefix };
    let message = wire.receive().await?;
    let mut fields = Fields { left: &message, expected: "a name of version 6" };
    fields.tag(b'N')?;
    let flags = DistributionFlags::from_bits_truncate(fields.u64()?);
    let creation = fields.u32()?;
    let name = fields.name()?;
    if !flags.contains(required()) || flags.contains(DistributionFlags::NAME_ME) {
        return Err(HandshakeError::Flags);
    }
    Ok(Named { wire, peer: Peer { name, flags, creation } })
}

impl<S: AsyncRead + AsyncWrite + Unpin> Named<S> {
    /// The name that the peer claims. The peer has not proved anything yet.
    pub fn name(&self) -> &NodeName {
        &self.peer.name
    }

    /// Refuses a peer whose name is of the other kind (long or short).
    pub async fn refuse_kind(self, own: &NodeName) -> HandshakeError {
        let peer = self.peer.name.clone();
        match self.refuse("not_allowed").await {
            HandshakeError::NotLetIn { .. } => HandshakeError::NameKind { peer, own: own.clone() },
            error => error,
        }
    }

    pub async fn refuse(mut self, status: &'static str) -> HandshakeError {
        match self.wire.send(format!("s{status}").as_bytes()).await {
            Ok(()) => HandshakeError::NotLetIn { status },
            Err(error) => error,
        }
    }

    /// Continues the handshake. `status` is `ok` or `ok_simultaneous`, never `alive`: its answer would cost
    /// one more round trip for a connection that is replaced anyway once the peer has proved itself.
    pub async fn let_in(mut self, status: &'static str, local: &Local) -> Result<(S, Peer), HandshakeError> {
        self.wire.send(format!("s{status}").as_bytes()).await?;
        let own_challenge: u32 = rand::random();
        let mut challenge = vec![b'N'];
        challenge.extend(flags().bits().to_be_bytes());
        challenge.extend(own_challenge.to_be_bytes());
        challenge.extend(local.creation.to_be_bytes());
        put_name(&mut challenge, &local.name);
        self.wire.send(&challenge).await?;

        let message = self.wire.receive().await?;
        let mut fields = Fields { left: &message, expected: "a reply" };
        fields.tag(b'r')?;
        let challenge = fields.u32()?;
        verify(&local.cookie, own_challenge, fields.left)?;

        let mut acknowledgement = vec![b'a'];
        acknowledgement.extend(local.cookie.digest(challenge));
        self.wire.send(&acknowledgement).await?;
        Ok((self.wire.stream, self.peer))
    }
}

fn verify(cookie: &Cookie, challenge: u32, digest: &[u8]) -> Result<(), HandshakeError> {
    if bool::from(cookie.digest(challenge).ct_eq(digest)) { Ok(()) } else { Err(HandshakeError::Cookie) }
}

#[cfg(test)]
mod tests;
