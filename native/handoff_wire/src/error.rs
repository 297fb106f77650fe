//! What can be wrong with a message.
//!
//! Guarantee: every error says what was expected where, and none repeats bytes of unbounded length.

/// Why bytes are not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The bytes end before the term does, or a length is larger than what is left.
    #[error("the term is cut short")]
    Truncated,
    /// Not the external term format.
    #[error("version byte {got}, expected 131")]
    Version {
        /// The first byte.
        got: u8,
    },
    /// A tag that is unknown or not taken (compressed terms, local funs, cache references).
    #[error("tag {tag} is not taken")]
    Tag {
        /// The tag.
        tag: u8,
    },
    /// More nested containers than [`crate::check::MAX_DEPTH`].
    #[error("nested deeper than {}", crate::check::MAX_DEPTH)]
    TooDeep,
    /// More terms than [`crate::check::MAX_TERMS`].
    #[error("more than {} terms", crate::check::MAX_TERMS)]
    TooManyTerms,
    /// A bit string whose last byte has no bits or more than eight.
    #[error("a bit string with an impossible last byte")]
    Bits,
    /// Something longer than the format or this protocol has it.
    #[error("{what} of length {got}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length.
        got: usize,
    },
}

impl CheckError {
    /// True when no conforming node sends this; false when it is a term that is merely not taken here.
    pub fn is_malformed(&self) -> bool {
        match self {
            CheckError::Truncated | CheckError::Version { .. } | CheckError::Bits => true,
            CheckError::Tag { .. } | CheckError::TooDeep | CheckError::TooManyTerms | CheckError::TooLong { .. } => {
                false
            }
        }
    }
}

/// Why a term is not one of our messages, or not a valid one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes were not decoded.
    #[error("not taken: {source}")]
    Check {
        /// Why.
        #[from]
        source: CheckError,
    },
    /// The bytes passed the check and still could not be decoded (an atom that is not UTF-8, a float that is not finite).
    #[error("not decoded: {source}")]
    Decode {
        /// Why.
        #[from]
        source: eetf::DecodeError,
    },
    /// A term could not be encoded.
    #[error("not encoded: {source}")]
    Encode {
        /// Why.
        #[from]
        source: eetf::EncodeError,
    },
    /// Not `{durable_handoff, Version, Kind, ...}`.
    #[error("not a durable_handoff message")]
    NotOurs,
    /// A message of a version this side does not speak.
    #[error("message version {got}, this side speaks {takes}")]
    Version {
        /// The message's version.
        got: u64,
        /// [`crate::VERSION`].
        takes: u64,
    },
    /// Our version, but no such kind.
    #[error("no message kind {kind:?}")]
    Kind {
        /// The kind, cut to 64 characters.
        kind: String,
    },
    /// A field is missing, or is of another type or outside of its range.
    #[error("{field}: takes {takes}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// More of something than one message or one drain may have.
    #[error("{what}: got {got}, takes at most {takes}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        got: usize,
        /// The limit.
        takes: usize,
    },
}
