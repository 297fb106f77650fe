//! Errors, safe to log.

use std::time::Duration;

use crate::Flaw;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("no such object")]
    NotFound,
    #[error("the condition of the write does not hold")]
    Conflict,
    /// The deadline passed. A write may have been applied.
    #[error("no answer in time")]
    Timeout,
    #[error("too many requests are waiting")]
    Overloaded,
    /// Another request for the object was in the way (S3's 409).
    #[error("another request for the object was in progress")]
    Contended,
    /// The object was written or read too often (429 of R2 and Google). Says nothing about the store.
    #[error("too many requests for this object")]
    Paced {
        /// The pause that the store asks for, for this object.
        retry_after: Option<Duration>,
    },
    /// The store asks for fewer requests: 429, 503, `SlowDown`.
    #[error("the store asks to slow down (status {status})")]
    SlowDown { status: u16, retry_after: Option<Duration> },
    /// The store refused the credentials, or there are none.
    #[error("access denied (status {status}, code {code}): {reason}")]
    Denied {
        /// The HTTP status; 0 when there were no credentials to send.
        status: u16,
        code: String,
        reason: String,
        /// Whether other credentials, fetched now, could be accepted.
        expired: bool,
    },
    /// The service for credentials failed. The store received no request.
    #[error("credentials cannot be fetched: {reason}")]
    Credentials {
        /// The HTTP status; 0 when there was no answer.
        status: u16,
        reason: String,
    },
    #[error("the answer (status {status}) does not come from an object store")]
    NotAStore { status: u16 },
    #[error("the store does not support this request (status {status}, code {code})")]
    Unsupported { status: u16, code: String },
    /// The store cannot keep one owner for each key: see [`crate::Store::check`].
    #[error("{}", flaw.problem())]
    Unfit { flaw: Flaw },
    #[error("the bucket {bucket} does not exist")]
    NoBucket { bucket: String },
    /// Any other answer that is not a success.
    #[error("the store answered with status {status} (code {code})")]
    Server { status: u16, code: String, passes: bool, unsure: bool },
    /// The store was not reached, or the connection was lost. A write may have been applied when `sent`.
    #[error("the store cannot be reached: {reason}")]
    Network { reason: String, sent: bool },
    #[error("{action}: {reason}")]
    Io {
        action: &'static str,
        reason: String,
        /// Every reader sees the change, but a power cut may undo it.
        applied: bool,
    },
    /// No store can hold an object under this key.
    #[error("invalid key: {reason}")]
    InvalidKey { reason: &'static str },
    /// The URL or an option is wrong; nothing was sent.
    #[error("{problem}")]
    Invalid {
        /// What is wrong, without the value where that could be a secret.
        problem: String,
    },
    /// The store was opened for reading only; nothing was sent.
    #[error("the store is open for reading only")]
    ReadOnly,
    #[error("the object has {bytes} bytes, more than the limit of {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the store's response is invalid: {reason}")]
    Protocol { reason: &'static str },
}

/// A fact about an error, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    Number(u64),
    /// A text without secrets.
    Text(String),
}

impl Error {
    /// Whether the same request may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::SlowDown { .. }
            | Self::Contended
            | Self::Paced { .. }
            | Self::Credentials { .. }
            | Self::NotAStore { .. }
            | Self::Network { .. }
            | Self::Io { .. }
            | Self::Timeout => true,
            Self::Server { passes, .. } => *passes,
            _ => false,
        }
    }

    /// Whether a write that failed like this may have been applied.
    pub fn is_unsure(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Network { sent, .. } => *sent,
            Self::Server { unsure, .. } => *unsure,
            Self::SlowDown { status, .. } => *status >= 500,
            // A proxy that responds with its own page may have forwarded the request.
            Self::NotAStore { .. } => true,
            // A success without an etag.
            Self::Protocol { .. } => true,
            Self::Io { applied, .. } => *applied,
            _ => false,
        }
    }

    /// Name of the kind of error, the same in Rust and Elixir.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Contended | Self::Paced { .. } => "contended",
            Self::SlowDown { .. } => "slow_down",
            Self::Denied { .. } => "denied",
            Self::Credentials { .. } => "credentials",
            Self::NotAStore { .. } => "not_a_store",
            Self::Unsupported { .. } => "unsupported",
            Self::Unfit { flaw } => flaw.kind(),
            Self::NoBucket { .. } => "no_bucket",
            Self::Server { .. } => "server",
            Self::Network { .. } => "network",
            Self::Io { .. } => "io",
            Self::InvalidKey { .. } => "invalid_key",
            Self::Invalid { .. } => "invalid",
            Self::ReadOnly => "read_only",
            Self::TooLarge { .. } => "too_large",
            Self::Protocol { .. } => "protocol",
        }
    }

    /// The facts beside the kind; may be empty.
    pub fn details(&self) -> Vec<(&'static str, Detail)> {
        let text = |text: &str| Detail::Text(text.to_owned());
        match self {
            Self::Server { status, code, .. } | Self::Unsupported { status, code } => {
                vec![("status", Detail::Number(u64::from(*status))), ("code", text(code))]
            }
            Self::Denied { status, code, reason, .. } => {
                vec![("status", Detail::Number(u64::from(*status))), ("code", text(code)), ("reason", text(reason))]
            }
            Self::Credentials { status, reason } => {
                vec![("status", Detail::Number(u64::from(*status))), ("reason", text(reason))]
            }
            Self::NotAStore { status } => vec![("status", Detail::Number(u64::from(*status)))],
            Self::Unfit { flaw } => vec![("problem", text(flaw.problem()))],
            Self::NoBucket { bucket } => vec![("bucket", text(bucket))],
            Self::Network { reason, .. } => vec![("reason", text(reason))],
            Self::Io { action, reason, .. } => vec![("action", text(action)), ("reason", text(reason))],
            Self::InvalidKey { reason } | Self::Protocol { reason } => vec![("reason", text(reason))],
            Self::Invalid { problem } => vec![("problem", text(problem))],
            Self::TooLarge { bytes, limit } => {
                vec![("bytes", Detail::Number(*bytes)), ("limit", Detail::Number(*limit))]
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn io(action: &'static str, error: &std::io::Error) -> Self {
        Self::Io { action, reason: error.to_string(), applied: false }
    }
}
