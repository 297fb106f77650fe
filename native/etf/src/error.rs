//! Errors of decoding, encoding, and reading terms.

use crate::check::CheckError;

/// Every error says what was expected and in which field. No error contains input of unbounded length.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes did not pass the check, so they were not decoded.
    #[error("not accepted: {source}")]
    Check {
        #[from]
        source: CheckError,
    },
    /// The bytes passed the check, not the decoder: an atom that is not UTF-8, a float that is not finite.
    #[error("not decoded: {source}")]
    Decode {
        #[from]
        source: eetf::DecodeError,
    },
    /// An atom or an integer is longer than the format allows.
    #[error("not encoded: {source}")]
    Encode {
        #[from]
        source: eetf::EncodeError,
    },
    /// A field is missing, has another type, or is outside of its range.
    #[error("{field}: takes {takes}")]
    Field { field: &'static str, takes: &'static str },
    #[error("{field}: {source}")]
    Value { field: &'static str, source: term_serde::Error },
    #[error("{what}: got {got}, takes at most {takes}")]
    TooMany { what: &'static str, got: usize, takes: usize },
}
