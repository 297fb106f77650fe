//! `refuse`: a refusal with its reason. After it the sender has forgotten the drain it names, unless the
//! reason is `duplicate`.
//!
//! Guarantee: the reason alone tells the receiver whether to try another node or to correct the request.

use std::fmt;

use etf::{Error, Term, atom, atom_name, elements, list, optional, read_each, read_text, read_u64, text, tuple, uint};

use crate::body::{Body, DrainId, exactly, read_id};

/// In one refusal.
const MAX_PROBLEMS: usize = 1_000;

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefuseReason {
    /// `{version, Got, Takes}`: the message's version is not spoken here.
    Version {
        got: u64,
        /// The version spoken here.
        takes: u64,
    },
    /// `{invalid, [Problem]}`: configuration, servers, view or a field are not valid.
    Invalid {
        /// A sentence each.
        problems: Vec<String>,
    },
    /// `{full, What, Limit}`: as much of it as this side takes.
    Full { what: String, limit: u64 },
    /// `{out_of_order, What}`: the message does not fit to those before it.
    OutOfOrder {
        /// What was expected.
        what: String,
    },
    /// `unknown_drain`: there is none of that number, or no more.
    UnknownDrain,
    /// `duplicate`: a drain of that number exists already and continues.
    Duplicate,
    /// `silent`: no message arrived for two seconds.
    Silent,
    /// `stopping`: this side is shutting down.
    Stopping,
    /// `failed`: a fault on this side; the log there says more.
    Failed,
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefuseReason::Version { got, takes } => write!(f, "version {got} is not spoken there, version {takes} is"),
            RefuseReason::Invalid { problems } => f.write_str(&problems.join("; ")),
            RefuseReason::Full { what, limit } => write!(f, "it takes at most {limit} {what}"),
            RefuseReason::OutOfOrder { what } => write!(f, "expected {what}"),
            RefuseReason::UnknownDrain => f.write_str("there is no such drain"),
            RefuseReason::Duplicate => f.write_str("it is draining already"),
            RefuseReason::Silent => f.write_str("no message arrived for two seconds"),
            RefuseReason::Stopping => f.write_str("it is shutting down"),
            RefuseReason::Failed => f.write_str("it failed there; the log there says more"),
        }
    }
}

/// `{durable_handoff, 1, refuse, Id | nil, Reason}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuse {
    /// The drain, or the operator's request, when it was one.
    pub id: Option<DrainId>,
    pub reason: RefuseReason,
}

impl Body for Refuse {
    const KIND: &'static str = "refuse";

    fn write(&self) -> Vec<Term> {
        vec![optional(self.id.map(|id| uint(id.0))), write(&self.reason)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id, reason] = exactly(fields)?;
        let id = match atom_name(id) {
            Some("nil") => None,
            _ => Some(read_id(id)?),
        };
        Ok(Refuse { id, reason: read(reason)? })
    }
}

fn write(reason: &RefuseReason) -> Term {
    match reason {
        RefuseReason::Version { got, takes } => tuple([atom("version"), uint(*got), uint(*takes)]),
        RefuseReason::Invalid { problems } => {
            tuple([atom("invalid"), list(problems.iter().take(MAX_PROBLEMS).map(|problem| text(problem)))])
        }
        RefuseReason::Full { what, limit } => tuple([atom("full"), text(what), uint(*limit)]),
        RefuseReason::OutOfOrder { what } => tuple([atom("out_of_order"), text(what)]),
        RefuseReason::UnknownDrain => atom("unknown_drain"),
        RefuseReason::Duplicate => atom("duplicate"),
        RefuseReason::Silent => atom("silent"),
        RefuseReason::Stopping => atom("stopping"),
        RefuseReason::Failed => atom("failed"),
    }
}

fn read(term: &Term) -> Result<RefuseReason, Error> {
    let unknown = || Err(Error::Field { field: "reason", takes: "a documented reason" });
    match elements(term) {
        Some([kind, got, takes]) if atom_name(kind) == Some("version") => {
            Ok(RefuseReason::Version { got: read_u64(got, "version")?, takes: read_u64(takes, "version")? })
        }
        Some([kind, what, limit]) if atom_name(kind) == Some("full") => {
            Ok(RefuseReason::Full { what: read_text(what, "what")?, limit: read_u64(limit, "limit")? })
        }
        Some([kind, problems]) if atom_name(kind) == Some("invalid") => Ok(RefuseReason::Invalid {
            problems: read_each(problems, "problems", MAX_PROBLEMS, |problem| read_text(problem, "problem"))?,
        }),
        Some([kind, what]) if atom_name(kind) == Some("out_of_order") => {
            Ok(RefuseReason::OutOfOrder { what: read_text(what, "what")? })
        }
        Some(_) => unknown(),
        None => match atom_name(term) {
            Some("unknown_drain") => Ok(RefuseReason::UnknownDrain),
            Some("duplicate") => Ok(RefuseReason::Duplicate),
            Some("silent") => Ok(RefuseReason::Silent),
            Some("stopping") => Ok(RefuseReason::Stopping),
            Some("failed") => Ok(RefuseReason::Failed),
            _ => unknown(),
        },
    }
}
