//! Why writing stopped or a text was refused.

/// Why something was not written. One byte, so that a walk through many values passes it in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The output would be larger than the limit it was given.
    #[error("the output is larger than its limit")]
    TooLarge,
    /// Out of memory.
    #[error("no memory for the output")]
    OutOfMemory,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
}

/// Why a text is not read. Positions are bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The text ends inside a value.
    #[error("the text ends inside a value")]
    UnexpectedEnd,
    /// A byte that cannot stand where it stands.
    #[error("unexpected byte {byte} at {at}")]
    UnexpectedByte {
        /// Its position.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// A `\u` escape that is not four hexadecimal digits, or half of a surrogate pair.
    #[error("bad escape at {at}")]
    BadEscape {
        /// The position of its backslash.
        at: usize,
    },
    /// A number no float can hold.
    #[error("the number at {at} is too large for a float")]
    NumberRange {
        /// The position of its first byte.
        at: usize,
    },
    /// More arrays and objects inside each other than [`MAX_DEPTH`](crate::MAX_DEPTH).
    #[error("nested too deeply at {at}")]
    TooDeep {
        /// The position of the bracket that was one too many.
        at: usize,
    },
    /// Out of memory for a string with escapes.
    #[error("no memory for a string")]
    OutOfMemory,
    /// The reader of the events wanted no more of them.
    #[error("the reader declined")]
    Declined,
}

/// A sink wants no more events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declined;

impl From<Declined> for ReadError {
    fn from(_: Declined) -> Self {
        ReadError::Declined
    }
}

impl From<WriteError> for ReadError {
    /// Strings are unescaped without a limit: what else can go wrong is memory.
    fn from(_: WriteError) -> Self {
        ReadError::OutOfMemory
    }
}
