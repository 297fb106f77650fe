//! The causes of failed connections, grouped by what an operator can do about them.

use std::fmt;
use std::io;

use tokio_rustls::rustls::{self, AlertDescription};

use super::epmd::PortMapperError;
use super::handshake::HandshakeError;

/// Each cause with its label, which the metric and `status` use, and its advice.
macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident, $label:literal: $advice:literal;)*) => {
        /// The cause of a failed connection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Cause {
            $($(#[$doc])* $cause,)*
        }

        impl Cause {
            pub const ALL: &[Cause] = &[$(Cause::$cause),*];

            pub fn label(self) -> &'static str {
                match self {
                    $(Cause::$cause => $label),*
                }
            }

            pub fn advice(self) -> &'static str {
                match self {
                    $(Cause::$cause => $advice),*
                }
            }
        }
    };
}

causes! {
    Dns, "dns": "check the host in the node's name, and the resolver of this machine";
    /// EPMD does not answer.
    Epmd, "epmd": "start EPMD on the node's machine and open its port; \
                   for nodes without EPMD give their port (NAME@HOST:PORT, or --dist-port for all)";
    /// EPMD answers, but knows no node of that name.
    UnknownName, "unknown_name": "start the node, or compare its name with what `epmd -names` shows on its machine";
    /// The node's port does not accept connections.
    Port, "port": "open the node's distribution port in firewalls and network policies \
                   (kernel's inet_dist_listen_min and _max fix it), or correct the port given";
    /// One side uses TLS and the other does not.
    Tls, "tls": "use TLS on both sides or on none: --tls-ca, --tls-certificate and --tls-key here, \
                 -proto_dist inet_tls or inet6_tls there";
    Certificate, "certificate": "both certificates must come from the authority in --tls-ca, be in date, \
                                 and name the host of their node; the node's log has its view";
    Cookie, "cookie": "give this node the cluster's cookie, with --cookie-file or DURABLE_HANDOFF_COOKIE";
    /// The node that answers has a different name from the one that was dialled.
    Name, "name": "connect to the name that the node answers with";
    /// One name is long and the other is short.
    NameKind, "name_kind": "use names of one kind: long ones (a dot or an address after the @) or short ones";
    /// The peer is too old, or is not an Erlang node.
    Flags, "flags": "run the node on OTP 25 or later; if it does, another service has its port";
    /// The peer does not accept this node's name.
    Refused, "refused": "allow this node's name there (net_kernel:allow/1)";
    /// The handshake began and did not complete.
    Handshake, "handshake": "look in the node's log: it ended the handshake, or did not answer in time";
    /// The peer's tick time is shorter than this node can serve.
    TickTime, "tick_time": "set net_ticktime of the node's kernel application to 8 or more";
}

impl Cause {
    /// True for a cause that does not disappear by itself, such as a wrong cookie. A node that is absent may
    /// still arrive.
    pub fn is_misconfiguration(self) -> bool {
        !matches!(self, Cause::Dns | Cause::Epmd | Cause::UnknownName | Cause::Port | Cause::Handshake)
    }

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
