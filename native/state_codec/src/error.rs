//! Errors of writing and of parsing.

/// An error of writing. One byte, so that functions return it in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The output would be larger than the limit it was given.
    #[error("the output is larger than its limit")]
    TooLarge,
    #[error("no memory for the output")]
    OutOfMemory,
    #[error("a string is not UTF-8")]
    InvalidUtf8,
}

/// An error of parsing. Positions are bytes from the start of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    #[error("the text ends inside a value")]
    UnexpectedEnd,
    /// A byte that is not valid at its position.
    #[error("unexpected byte {byte} at {at}")]
    UnexpectedByte { at: usize, byte: u8 },
    /// A `\u` escape that is not four hexadecimal digits, or half of a surrogate pair.
    #[error("bad escape at {at}")]
    BadEscape {
        /// The position of its backslash.
        at: usize,
    },
    /// A number that is too large for a float.
    #[error("the number at {at} is too large for a float")]
    NumberRange {
        /// The position of its first byte.
        at: usize,
    },
    /// Arrays and objects nested deeper than [`MAX_DEPTH`](crate::MAX_DEPTH).
    #[error("nested too deeply at {at}")]
    TooDeep {
        /// The position of the bracket that exceeded the depth.
        at: usize,
    },
    /// Out of memory for a string with escapes.
    #[error("no memory for a string")]
    OutOfMemory,
    /// The sink refused an event.
    #[error("the reader declined")]
    Declined,
}

/// A sink accepts no more events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declined;

impl From<Declined> for ReadError {
    fn from(_: Declined) -> Self {
        ReadError::Declined
    }
}

impl From<WriteError> for ReadError {
    /// Unescaping has no size limit, so the only error is a lack of memory.
    fn from(_: WriteError) -> Self {
        ReadError::OutOfMemory
    }
}
