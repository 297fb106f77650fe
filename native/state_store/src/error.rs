//! What can go wrong, in words that are safe to log.

use std::time::Duration;

/// Why a request was not answered with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no object under the key.
    #[error("no such object")]
    NotFound,
    /// The condition of the write does not hold.
    #[error("the object is not what the condition says")]
    Conflict,
    /// The deadline came first. A write may have been applied.
    #[error("no answer in time")]
    Timeout,
    /// Too many requests wait for their turn already.
    #[error("too many requests are waiting")]
    Overloaded,
    /// Another request for the object was in the way (S3's 409).
    #[error("another request for the object was in progress")]
    Contended,
    /// The store asks for fewer requests: 429, 503, `SlowDown`.
    #[error("the store asks to slow down (status {status})")]
    SlowDown {
        /// The HTTP status.
        status: u16,
        /// How long the store asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The store refused the credentials.
    #[error("access denied (status {status}, code {code})")]
    Denied {
        /// The HTTP status; 0 when there were no credentials to send.
        status: u16,
        /// The provider's error code.
        code: String,
    },
    /// The bucket, container or directory does not exist.
    #[error("the bucket {bucket} does not exist")]
    NoBucket {
        /// Its name in the URL.
        bucket: String,
    },
    /// Any other answer that is not a success.
    #[error("the store answered with status {status} (code {code})")]
    Server {
        /// The HTTP status.
        status: u16,
        /// The provider's error code.
        code: String,
    },
    /// The store was not reached, or the connection was lost. A write may have been applied when `sent`.
    #[error("the store cannot be reached: {reason}")]
    Network {
        /// The transport's own words.
        reason: String,
        /// Whether the request may have arrived.
        sent: bool,
    },
    /// A file operation failed.
    #[error("{action}: {reason}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The operating system's words.
        reason: String,
    },
    /// No store can hold an object under this key.
    #[error("invalid key: {reason}")]
    InvalidKey {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The URL or an option is wrong; nothing was sent.
    #[error("{problem}")]
    Invalid {
        /// What is wrong, without the value where that could be a secret.
        problem: String,
    },
    /// The store was opened for reading only; nothing was sent.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// An object larger than this store reads or writes.
    #[error("an object of {bytes} bytes, where {limit} is the most")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The largest one allowed.
        limit: u64,
    },
    /// An answer that is no answer to what was asked.
    #[error("the store's answer makes no sense: {reason}")]
    Protocol {
        /// What is missing.
        reason: &'static str,
    },
}

/// One more fact about an error, for those who show it as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// A number.
    Number(u64),
    /// A text without secrets.
    Text(String),
}

impl Error {
    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::SlowDown { .. } | Self::Contended | Self::Network { .. } | Self::Timeout => true,
            Self::Server { status, .. } => *status >= 500 || *status == 408,
            _ => false,
        }
    }

    /// Whether a write that ended like this may have been applied all the same.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Network { sent, .. } => *sent,
            Self::Server { status, .. } | Self::SlowDown { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// One word for the kind of error, the same in every language.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Contended => "contended",
            Self::SlowDown { .. } => "slow_down",
            Self::Denied { .. } => "denied",
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

    /// The facts that go with the kind; empty when the kind says it all.
    #[must_use]
    pub fn details(&self) -> Vec<(&'static str, Detail)> {
        let text = |text: &str| Detail::Text(text.to_owned());
        match self {
            Self::Denied { status, code } | Self::Server { status, code } => {
                vec![("status", Detail::Number(u64::from(*status))), ("code", text(code))]
            }
            Self::NoBucket { bucket } => vec![("bucket", text(bucket))],
            Self::Network { reason, .. } => vec![("reason", text(reason))],
            Self::Io { action, reason } => vec![("action", text(action)), ("reason", text(reason))],
            Self::InvalidKey { reason } | Self::Protocol { reason } => vec![("reason", text(reason))],
            Self::Invalid { problem } => vec![("problem", text(problem))],
            Self::TooLarge { bytes, limit } => {
                vec![("bytes", Detail::Number(*bytes)), ("limit", Detail::Number(*limit))]
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn io(action: &'static str, error: &std::io::Error) -> Self {
        Self::Io { action, reason: error.to_string() }
    }
}
