//! Why bytes or a term are not a message of this protocol.

/// No variant contains input of unbounded length.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes are not accepted as a term, or a field of the message is invalid.
    #[error(transparent)]
    Term {
        #[from]
        source: etf::Error,
    },
    /// Not `{durable_handoff, Version, Kind, ...}`.
    #[error("not a durable_handoff message")]
    NotOurs,
    /// The version of the message is not supported.
    #[error("message version {got}, this side speaks {takes}")]
    Version { got: u64, takes: u64 },
    /// The version is supported, but the kind is unknown. The kind is cut to 64 characters.
    #[error("no message kind {kind:?}")]
    Kind { kind: String },
}
