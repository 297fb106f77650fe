//! The envelope of every message, and the list of kinds.
//!
//! Guarantee: a message of another version is refused with that reason, whatever its kind and fields. A
//! decoded message is within every limit of this crate.

use etf::{Checked, Term, atom, atom_name, elements, encode, read_u64, tuple, uint};

use crate::announce::{Announce, Welcome};
use crate::body::Body;
use crate::drain::{DrainClose, DrainStart, Events, Keepalive, Orders, ProgressUpdate, ReportMessage, Started};
use crate::error::WireError;
use crate::open::{DrainOpen, Opened, RebalanceOpen};
use crate::operator::{
    CordonDone, CordonRequest, Describe, Description, DrainDone, DrainRequest, DrainStep, MoveDone, MoveRequest,
    PlanDone, RebalanceRequest,
};
use crate::refuse::Refuse;
use crate::servers::Servers;
use crate::view::ViewPart;

/// The version of these messages. It changes when an existing field changes its meaning; new kinds and new
/// map keys do not need it, because both sides ignore keys they do not know and refuse kinds they do not
/// know.
pub const VERSION: u64 = 1;
/// The first element of every message.
pub const TAG: &str = "durable_handoff";
/// The registered name of the Rust node's process.
pub const NODE_PROCESS: &str = "durable_handoff";
/// The registered name of a BEAM node's process.
pub const AGENT_PROCESS: &str = "Elixir.DurableHandoff.Agent";

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident($body:ty)),* $(,)?) => {
        #[derive(Debug, Clone, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $name($body)),*
        }

        impl Message {
            /// The kind, as it is on the wire and in metrics.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Message::$name(_) => <$body>::KIND),*
                }
            }

            pub fn to_term(&self) -> Term {
                let (kind, mut fields) = match self {
                    $(Message::$name(body) => (<$body>::KIND, body.write())),*
                };
                let mut all = vec![atom(TAG), uint(VERSION), atom(kind)];
                all.append(&mut fields);
                tuple(all)
            }

            fn read(kind: &str, fields: &[Term]) -> Result<Self, WireError> {
                match kind {
                    $(<$body>::KIND => Ok(Message::$name(<$body>::read(fields)?)),)*
                    _ => Err(WireError::Kind { kind: kind.chars().take(64).collect() }),
                }
            }
        }

        $(impl From<$body> for Message {
            fn from(body: $body) -> Self {
                Message::$name(body)
            }
        })*
    };
}

messages! {
    /// Rust node to agent: the node exists, and accepts drains or no more drains.
    Announce(Announce),
    /// Agent to Rust node: the announcement has arrived; names the agent.
    Welcome(Welcome),
    /// Drainer to Rust node: run a drain.
    DrainOpen(DrainOpen),
    /// Drainer to Rust node: run a rebalance.
    RebalanceOpen(RebalanceOpen),
    /// Rust node to drainer: the drain is accepted.
    Opened(Opened),
    /// Drainer to Rust node: some of the drain's servers.
    Servers(Servers),
    /// Drainer to Rust node: some of the nodes of a view.
    View(ViewPart),
    /// Drainer to Rust node: everything was sent; begin.
    DrainStart(DrainStart),
    /// Rust node to drainer: the engine has begun.
    Started(Started),
    /// Rust node to drainer: actions to execute.
    Orders(Orders),
    /// Drainer to Rust node: outcomes of actions, and other events.
    Events(Events),
    /// Drainer to Rust node: the drainer still runs.
    Keepalive(Keepalive),
    /// Rust node to drainer: progress. It also shows that the node still runs.
    Progress(ProgressUpdate),
    /// Rust node to drainer: the drain's summary.
    Report(ReportMessage),
    /// Drainer to Rust node: the drain is over here.
    DrainClose(DrainClose),
    /// Either side: a refusal with its reason.
    Refuse(Refuse),
    /// Operator to agent: asks for a description of the node.
    Describe(Describe),
    /// Agent to operator: the description.
    Description(Description),
    /// Operator to agent: drain a supervisor, or return the plan of a drain.
    DrainRequest(DrainRequest),
    /// Agent to operator: progress.
    DrainStep(DrainStep),
    /// Agent to operator: the result of a drain.
    DrainDone(DrainDone),
    /// Agent to operator: the plan of a drain.
    Plan(PlanDone),
    /// Operator to agent: cordon or uncordon.
    CordonRequest(CordonRequest),
    /// Agent to operator: the supervisors that were cordoned or uncordoned.
    CordonDone(CordonDone),
    /// Operator to agent: move one server.
    MoveRequest(MoveRequest),
    /// Agent to operator: where the server runs now.
    MoveDone(MoveDone),
    /// Operator to agent: move the node's excess.
    RebalanceRequest(RebalanceRequest),
}

impl Message {
    /// Reads a decoded term.
    pub fn from_term(term: &Term) -> Result<Self, WireError> {
        let (version, kind, fields) = match elements(term) {
            Some([tag, version, kind, fields @ ..]) if atom_name(tag) == Some(TAG) => (version, kind, fields),
            _ => return Err(WireError::NotOurs),
        };
        match read_u64(version, "version")? {
            VERSION => {}
            got => return Err(WireError::Version { got, takes: VERSION }),
        }
        Message::read(atom_name(kind).ok_or(WireError::NotOurs)?, fields)
    }

    /// As bytes of the external term format.
    pub fn to_bytes(&self) -> Result<Vec<u8>, etf::Error> {
        encode(&self.to_term())
    }

    /// Decodes and reads bytes that were checked.
    pub fn from_checked(bytes: &Checked<'_>) -> Result<Self, WireError> {
        Message::from_term(&bytes.decode()?)
    }

    /// Checks, decodes and reads bytes of the external term format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        Message::from_checked(&Checked::whole(bytes).map_err(etf::Error::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_pinned() {
        assert_eq!(VERSION, 1, "raise it only when an existing field changes its meaning");
    }

    #[test]
    fn a_newer_version_is_reported_even_when_its_kind_is_unknown() {
        let term = tuple([atom(TAG), uint(2), atom("brand_new")]);
        assert!(matches!(Message::from_term(&term), Err(WireError::Version { got: 2, takes: 1 })));
    }

    #[test]
    fn foreign_terms_are_distinguished_from_invalid_messages() {
        assert!(matches!(Message::from_term(&atom("hello")), Err(WireError::NotOurs)));
        assert!(matches!(Message::from_term(&tuple([atom("other"), uint(1)])), Err(WireError::NotOurs)));
        let unknown = tuple([atom(TAG), uint(1), atom(&"k".repeat(200))]);
        assert!(matches!(Message::from_term(&unknown), Err(WireError::Kind { kind }) if kind.len() == 64));
        let short = tuple([atom(TAG), uint(1), atom("keepalive")]);
        assert!(matches!(
            Message::from_term(&short),
            Err(WireError::Term { source: etf::Error::Field { field: "message", .. } })
        ));
    }
}
