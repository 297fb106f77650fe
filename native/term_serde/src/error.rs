//! What is wrong with a term.

use std::fmt;

/// Why a term is not what was asked for, and the keys that lead there.
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

    /// The same, inside the value of `key`.
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
    // serde quotes what it got; that may be long.
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::new(message.to_string().chars().take(200).collect::<String>())
    }
}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::new(message.to_string())
    }
}
