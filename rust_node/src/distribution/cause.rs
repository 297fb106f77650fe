//! The causes of failed connections, grouped by what an operator can do about them.

use std::fmt;
use std::io;

use tokio_rustls::rustls::{self, AlertDescription};

use super::epmd::PortMapperError;
use super::handshake::HandshakeError;

/// The cause of a failed connection. Its label is used by the metric and by `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    Dns,
    /// EPMD does not answer.
    Epmd,
    /// EPMD answers, but knows no node of that name.
    UnknownName,
    /// The node's port does not accept connections.
    Port,
    /// One side uses TLS and the other does not.
    Tls,
    Certificate,
    Cookie,
    /// The node that answers has a different name from the one that was dialled.
    Name,
    /// One name is long and the other is short.
    NameKind,
    /// The peer is too old, or is not an Erlang node.
    Flags,
    /// The peer does not accept this node's name.
    Refused,
    /// The handshake began and did not complete.
    Handshake,
    /// The peer's tick time is shorter than this node can serve.
    TickTime,
}

impl Cause {
    pub const ALL: [Cause; 13] = [
        Cause::Dns,
        Cause::Epmd,
        Cause::UnknownName,
        Cause::Port,
        Cause::Tls,
        Cause::Certificate,
        Cause::Cookie,
        Cause::Name,
        Cause::NameKind,
        Cause::Flags,
        Cause::Refused,
        Cause::Handshake,
        Cause::TickTime,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Cause::Dns => "dns",
            Cause::Epmd => "epmd",
            Cause::UnknownName => "unknown_name",
            Cause::Port => "port",
            Cause::Tls => "tls",
            Cause::Certificate => "certificate",
            Cause::Cookie => "cookie",
            Cause::Name => "name",
            Cause::NameKind => "name_kind",
            Cause::Flags => "flags",
            Cause::Refused => "refused",
            Cause::Handshake => "handshake",
            Cause::TickTime => "tick_time",
        }
    }

    /// What an operator should do about this cause.
    pub fn advice(self) -> &'static str {
        match self {
            Cause::Dns => "check the host in the node's name, and the resolver of this machine",
            Cause::Epmd => {
                "start EPMD on the node's machine and open its port; for nodes without EPMD give their port (NAME@HOST:PORT, or --dist-port for all)"
            }
            Cause::UnknownName => "start the node, or compare its name with what `epmd -names` shows on its machine",
            Cause::Port => {
                "open the node's distribution port in firewalls and network policies (kernel's inet_dist_listen_min and _max fix it), or correct the port given"
            }
            Cause::Tls => {
                "use TLS on both sides or on none: --tls-ca, --tls-certificate and --tls-key here, -proto_dist inet_tls or inet6_tls there"
            }
            Cause::Certificate => {
                "both certificates must come from the authority in --tls-ca, be in date, and name the host of their node; the node's log has its view"
            }
            Cause::Cookie => "give this node the cluster's cookie, with --cookie-file or DURABLE_HANDOFF_COOKIE",
            Cause::Name => "connect to the name that the node answers with",
            Cause::NameKind => "use names of one kind: long ones (a dot or an address after the @) or short ones",
            Cause::Flags => "run the node on OTP 25 or later; if it does, another service has its port",
            Cause::Refused => "allow this node's name there (net_kernel:allow/1)",
            Cause::Handshake => "look in the node's log: it ended the handshake, or did not answer in time",
            Cause::TickTime => "set net_ticktime of the node's kernel application to 8 or more",
        }
    }

    /// True for a cause that does not disappear by itself, such as a wrong cookie. A node that is absent may
    /// still arrive.
    pub fn is_misconfiguration(self) -> bool {
        !matches!(self, Cause::Dns | Cause::Epmd | Cause::UnknownName | Cause::Port | Cause::Handshake)
    }

    /// The cause of a failed look-up in the port mapper.
    pub fn of_port_mapper(error: &PortMapperError) -> Cause {
        match error {
            PortMapperError::Unknown { .. } => Cause::UnknownName,
            PortMapperError::Io { .. }
            | PortMapperError::Answer { .. }
            | PortMapperError::Taken { .. }
            | PortMapperError::Timeout { .. } => Cause::Epmd,
        }
    }

    /// The cause of a failed handshake; `None` when an operator can do nothing about it.
    pub fn of_handshake(error: &HandshakeError) -> Option<Cause> {
        match error {
            HandshakeError::Io { source } => Some(Cause::of_io(source)),
            // The first bytes of a TLS record (an alert or a hello), read as a length.
            HandshakeError::TooLong { length: 0x1503 | 0x1603 } => Some(Cause::Tls),
            HandshakeError::TooLong { .. } | HandshakeError::Unexpected { .. } | HandshakeError::Flags => {
                Some(Cause::Flags)
            }
            HandshakeError::Cookie => Some(Cause::Cookie),
            HandshakeError::Name { .. } => Some(Cause::Name),
            HandshakeError::NameKind { .. } => Some(Cause::NameKind),
            HandshakeError::Refused { status } if status == "not_allowed" => Some(Cause::Refused),
            // Both sides dialled at once, or this node's allow-list refused the peer as intended.
            HandshakeError::Refused { .. } | HandshakeError::NotLetIn { .. } => None,
        }
    }

    fn of_io(error: &io::Error) -> Cause {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            None => Cause::Handshake,
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => Cause::Certificate,
            // OTP reports a host name that does not match as a failed handshake.
            Some(rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
                | AlertDescription::UnknownCA
                | AlertDescription::HandshakeFailure,
            )) => Cause::Certificate,
            Some(_) => Cause::Tls,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_has_its_own_label_and_advice() {
        let labels: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.label()).collect();
        assert_eq!(labels.len(), Cause::ALL.len());
        assert!(Cause::ALL.iter().all(|cause| cause.advice().len() > 20));
    }
}
