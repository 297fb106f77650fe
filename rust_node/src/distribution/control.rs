//! Control messages: deliveries, links, monitors and requests of a peer.
//!
//! Guarantee: [`parse`] knows every operation that a BEAM of OTP 25 to 29 can send with our flags, and
//! refuses all others by number. Payloads stay bytes until a recipient decodes them. This module reads the
//! fields itself: `erl_dist`'s types swap the fields of traced sends and decode every payload.

use erl_dist::term::PidOrAtom;
use etf::{Atom, CheckError, Checked, Pid, Reference, Term, pid, reference};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Process {
    Pid(Pid),
    Name(String),
}

impl From<Process> for PidOrAtom {
    fn from(process: Process) -> Self {
        match process {
            Process::Pid(pid) => PidOrAtom::Pid(pid),
            Process::Name(name) => PidOrAtom::Atom(Atom::from(name)),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Control {
    Send {
        to: Pid,
    },
    RegSend {
        from: Pid,
        to: String,
    },
    AliasSend {
        alias: Reference,
    },
    /// A process of the peer links to a process here.
    Link {
        from: Pid,
        to: Pid,
    },
    /// A link is removed. The peer waits for the acknowledgement.
    UnlinkId {
        id: Term,
        from: Pid,
        to: Pid,
    },
    /// A process of the peer monitors a process here.
    Monitor {
        from: Pid,
        to: Process,
        reference: Reference,
    },
    Demonitor {
        reference: Reference,
    },
    /// A process that this node monitors has ended.
    MonitorExit {
        reference: Reference,
        /// The exit reason, when it is an atom.
        reason: Option<String>,
    },
    /// The peer asks to spawn a process here.
    SpawnRequest {
        reference: Reference,
        from: Pid,
    },
    /// A valid message without effect here: exits of linked processes, group leaders, node links, replies to
    /// requests that this node never sends.
    Nothing,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The control term or the payload is not accepted.
    #[error(transparent)]
    Term {
        #[from]
        source: etf::Error,
    },
    /// An unknown operation, or a known one with other fields.
    #[error("control message {operation:?}")]
    Operation { operation: Option<u64> },
}

impl ControlError {
    /// True for a message that no conforming node sends. The connection must be closed.
    pub fn is_malformed(&self) -> bool {
        match self {
            ControlError::Term { source: etf::Error::Check { source } } => source.is_malformed(),
            ControlError::Term { .. } => false,
            ControlError::Operation { operation } => operation.is_none(),
        }
    }

    pub fn label(&self) -> &'static str {
        match self {
            ControlError::Term { source: etf::Error::Check { source } } => match source {
                CheckError::Truncated | CheckError::Trailing { .. } => "truncated",
                CheckError::Version { .. } => "version_byte",
                CheckError::Tag { .. } => "tag",
                CheckError::TooDeep => "too_deep",
                CheckError::TooManyTerms => "too_many_terms",
                CheckError::Bits => "bits",
                _ => "too_long",
            },
            ControlError::Term { .. } => "undecodable",
            ControlError::Operation { .. } => "operation",
        }
    }
}

/// Parses a message into its control part and its undecoded payload. The payload is `None` when the message
/// has none, or has one that is not accepted.
pub fn parse(message: &[u8]) -> Result<(Control, Option<Checked<'_>>), ControlError> {
    let (control, payload) = Checked::first(message).map_err(etf::Error::from)?;
    let control = control.decode()?;
    let elements = etf::elements(&control).unwrap_or_default();
    let operation = elements.first().and_then(|operation| etf::read_u64(operation, "operation").ok());
    let control = read(operation, elements).ok_or(ControlError::Operation { operation })?;
    if !has_payload(operation) {
        return match payload.len() {
            0 => Ok((control, None)),
            bytes => Err(etf::Error::from(CheckError::Trailing { bytes }).into()),
        };
    }
    match Checked::whole(payload) {
        Ok(payload) => Ok((control, Some(payload))),
        // The end of a process counts even when its reason is not accepted.
        Err(error) if !error.is_malformed() && matches!(control, Control::MonitorExit { .. }) => Ok((control, None)),
        Err(error) => Err(etf::Error::from(error).into()),
    }
}

fn has_payload(operation: Option<u64>) -> bool {
    matches!(operation, Some(2 | 6 | 12 | 16 | 22..=30 | 33 | 34))
}

fn read(operation: Option<u64>, elements: &[Term]) -> Option<Control> {
    Some(match (operation?, elements) {
        // SEND, SEND_TT, SEND_SENDER, SEND_SENDER_TT
        (2, [_, _, to]) | (12, [_, _, to, _]) | (22, [_, _, to]) | (23, [_, _, to, _]) => {
            Control::Send { to: pid(to).cloned()? }
        }
        // REG_SEND, REG_SEND_TT
        (6, [_, from, _, to]) | (16, [_, from, _, to, _]) => {
            Control::RegSend { from: pid(from).cloned()?, to: etf::atom_name(to)?.to_owned() }
        }
        // ALIAS_SEND, ALIAS_SEND_TT
        (33, [_, _, alias]) | (34, [_, _, alias, _]) => Control::AliasSend { alias: reference(alias).cloned()? },
        // LINK
        (1, [_, from, to]) => Control::Link { from: pid(from).cloned()?, to: pid(to).cloned()? },
        // UNLINK_ID
        (35, [_, id, from, to]) => {
            Control::UnlinkId { id: id.clone(), from: pid(from).cloned()?, to: pid(to).cloned()? }
        }
        // MONITOR_P, DEMONITOR_P
        (19, [_, from, to, monitor]) => {
            Control::Monitor { from: pid(from).cloned()?, to: process(to)?, reference: reference(monitor).cloned()? }
        }
        (20, [_, _, _, monitor]) => Control::Demonitor { reference: reference(monitor).cloned()? },
        // MONITOR_P_EXIT, PAYLOAD_MONITOR_P_EXIT
        (21, [_, _, _, monitor, reason]) => Control::MonitorExit {
            reference: reference(monitor).cloned()?,
            reason: etf::atom_name(reason).map(str::to_owned),
        },
        (28, [_, _, _, monitor]) => Control::MonitorExit { reference: reference(monitor).cloned()?, reason: None },
        // SPAWN_REQUEST, SPAWN_REQUEST_TT
        (29, [_, request, from, _, _, _]) | (30, [_, request, from, _, _, _, _]) => {
            Control::SpawnRequest { reference: reference(request).cloned()?, from: pid(from).cloned()? }
        }
        // EXIT, UNLINK, NODE_LINK, GROUP_LEADER, EXIT2, EXIT_TT, EXIT2_TT, PAYLOAD_EXIT and its three
        // variants, SPAWN_REPLY, SPAWN_REPLY_TT, UNLINK_ID_ACK
        (3 | 4 | 5 | 7 | 8 | 13 | 18 | 24..=27 | 31 | 32 | 36, _) => Control::Nothing,
        _ => return None,
    })
}

fn process(term: &Term) -> Option<Process> {
    match term {
        Term::Pid(pid) => Some(Process::Pid(pid.clone())),
        Term::Atom(atom) => Some(Process::Name(atom.name.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use erl_dist::message::Message;

    use super::*;

    fn written(message: Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.write_into(&mut bytes).expect("written");
        bytes
    }

    fn a_pid() -> Pid {
        Pid::new("n@h", 1, 2, 3)
    }

    fn a_reference() -> Reference {
        Reference { node: "n@h".into(), id: vec![1, 2, 3], creation: 4 }
    }

    #[test]
    fn messages_that_erl_dist_writes_are_understood() {
        let payload = etf::atom("hello");
        let encoded = etf::encode(&payload).expect("encodes");
        let encoded = Checked::whole(&encoded).expect("passes the check");
        let sends = [
            (Message::send(a_pid(), payload.clone()), Control::Send { to: a_pid() }),
            (
                Message::reg_send(a_pid(), "x".into(), payload.clone()),
                Control::RegSend { from: a_pid(), to: "x".to_owned() },
            ),
        ];
        for (message, expected) in sends {
            let bytes = written(message);
            assert_eq!(parse(&bytes).expect("understood"), (expected, Some(encoded.clone())));
        }
        let monitor = Message::monitor_p(a_pid(), PidOrAtom::Atom("x".into()), a_reference());
        let expected = Control::Monitor { from: a_pid(), to: Process::Name("x".into()), reference: a_reference() };
        assert_eq!(parse(&written(monitor)).expect("understood"), (expected, None));
    }

    #[test]
    fn an_exit_whose_reason_is_not_accepted_is_still_an_exit() {
        let control = etf::tuple([etf::uint(28), a_pid().into(), a_pid().into(), Term::from(a_reference())]);
        let mut bytes = etf::encode(&control).expect("encodes");
        bytes.extend([131, 112, 0, 0, 0, 9]);
        let (control, _) = parse(&bytes).expect("a local fun as reason");
        assert_eq!(control, Control::MonitorExit { reference: a_reference(), reason: None });
    }

    #[test]
    fn unknown_operations_and_fields_are_refused_with_their_number() {
        for (control, expected) in [
            (etf::tuple([etf::uint(99)]), Some(99)),
            (etf::tuple([etf::uint(2), etf::uint(1)]), Some(2)),
            (etf::atom("x"), None),
            (etf::tuple([]), None),
        ] {
            let bytes = etf::encode(&control).expect("encodes");
            assert!(matches!(parse(&bytes), Err(ControlError::Operation { operation }) if operation == expected));
        }
    }

    #[test]
    fn bytes_after_the_message_are_malformed() {
        let mut bytes = written(Message::send(a_pid(), etf::atom("x")));
        bytes.push(0);
        assert!(parse(&bytes).is_err_and(|error| error.is_malformed()));
    }
}
