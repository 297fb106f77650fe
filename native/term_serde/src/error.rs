//! Errors of reading and writing terms.

use std::fmt;

/// An error, and the path of keys to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The outermost key last.
    path: Vec<String>,
    message: String,
}

impl Error {
    /// An error without a path yet.
    pub fn new(message: impl Into<String>) -> Self {
        Error { path: Vec::new(), message: message.into() }
    }

    /// Adds `key` to the front of the path.
    pub(crate) fn within(mut self, key: &str) -> Self {
        self.path.push(key.to_owned());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in self.path.iter().rev() {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    // serde's message contains the value, which may be long.
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::new(message.to_string().chars().take(200).collect::<String>())
    }
}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::new(message.to_string())
    }
}
