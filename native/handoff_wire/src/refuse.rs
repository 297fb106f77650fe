//! `refuse`: a refusal with its reason. The sender has then forgotten the drain that the refusal names,
//! unless the reason is `duplicate`.
//!
//! Guarantee: the reason alone tells the receiver whether to try another node or to correct the request.

use etf::{Error, Term, atom, atom_name, elements, list, read_each, read_text, read_u64, text, tuple, uint};

use crate::body::{DrainId, body, values};

/// The most problems in one refusal.
const MAX_PROBLEMS: usize = 1_000;

/// The names of the reasons.
const KNOWN: [&str; 9] =
    ["version", "invalid", "full", "out_of_order", "unknown_drain", "duplicate", "silent", "stopping", "failed"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefuseReason {
    /// `{version, Got, Takes}`: the version of the message is not supported.
    #[error("version {got} is not spoken there, version {takes} is")]
    Version { got: u64, takes: u64 },
    /// `{invalid, [Problem]}`: configuration, servers, view or a field are invalid.
    #[error("{}", problems.join("; "))]
    Invalid { problems: Vec<String> },
    /// `{full, What, Limit}`: the limit of this side is reached.
    #[error("it takes at most {limit} {what}")]
    Full { what: String, limit: u64 },
    /// `{out_of_order, What}`: the message does not fit the ones before it.
    #[error("expected {what}")]
    OutOfOrder { what: String },
    /// `unknown_drain`: no drain has this number, or it was forgotten.
    #[error("there is no such drain")]
    UnknownDrain,
    /// `duplicate`: a drain of that number exists already and continues.
    #[error("it is draining already")]
    Duplicate,
    /// `silent`: no message arrived for two seconds.
    #[error("no message arrived for two seconds")]
    Silent,
    /// `stopping`: this side is shutting down.
    #[error("it is shutting down")]
    Stopping,
    /// `failed`: a fault on this side; its log has the details.
    #[error("it failed there; the log there says more")]
    Failed,
    /// A reason of a later release.
    #[error("{name} (a reason of a later release)")]
    Other { name: String },
}

/// `{durable_handoff, 1, refuse, Id | nil, Reason}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuse {
    /// The drain, or the operator's request.
    pub id: Option<DrainId>,
    pub reason: RefuseReason,
}

body!(Refuse = "refuse": id, reason);

values!(RefuseReason: |reason| write(reason), read;);

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
        RefuseReason::Other { name } => atom(name),
    }
}

fn read(term: &Term, field: &'static str) -> Result<RefuseReason, Error> {
    let (kind, fields) = match elements(term) {
        Some([kind, fields @ ..]) => (kind, fields),
        _ => (term, &[][..]),
    };
    let unknown = Error::Field { field, takes: "a documented reason" };
    let Some(name) = atom_name(kind) else { return Err(unknown) };
    Ok(match (name, fields) {
        ("version", [got, takes]) => {
            RefuseReason::Version { got: read_u64(got, "version")?, takes: read_u64(takes, "version")? }
        }
        ("full", [what, limit]) => {
            RefuseReason::Full { what: read_text(what, "what")?, limit: read_u64(limit, "limit")? }
        }
        ("invalid", [problems]) => RefuseReason::Invalid {
            problems: read_each(problems, "problems", MAX_PROBLEMS, |problem| read_text(problem, "problem"))?,
        },
        ("out_of_order", [what]) => RefuseReason::OutOfOrder { what: read_text(what, "what")? },
        ("unknown_drain", []) => RefuseReason::UnknownDrain,
        ("duplicate", []) => RefuseReason::Duplicate,
        ("silent", []) => RefuseReason::Silent,
        ("stopping", []) => RefuseReason::Stopping,
        ("failed", []) => RefuseReason::Failed,
        // A known reason with other fields.
        (name, _) if KNOWN.contains(&name) => return Err(unknown),
        (name, _) => RefuseReason::Other { name: name.to_owned() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_problems_than_the_bound_are_refused() {
        let read_problems = |count| read(&tuple([atom("invalid"), list((0..count).map(|_| text("p")))]), "reason");
        assert!(read_problems(MAX_PROBLEMS).is_ok() && read_problems(MAX_PROBLEMS + 1).is_err());
    }
}
