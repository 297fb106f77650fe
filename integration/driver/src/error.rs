//! The errors that end a run early.

use std::io::{self, Write};
use std::process::ExitCode;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run ended before its table. The nodes are ended in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    #[error("cannot start `{command}`, which every node needs (Debian: apt-get install elixir erlang)")]
    ElixirMissing { command: String, source: io::Error },
    #[error("cannot start {program}, which --executor node needs (cargo build --release --package rust_node)")]
    RustNodeMissing { program: std::path::PathBuf, source: io::Error },
    #[error("a node's clock cannot be set without libfaketime (Debian: apt-get install libfaketime)")]
    FaketimeMissing,
    /// A mixed cluster was requested, and one release ran no server.
    #[error("{reason}")]
    NotMixed { reason: String },
    #[error("node {node} ended by itself while {doing} ({status}); the end of its log:\n{log}")]
    NodeEnded { node: String, doing: String, status: String, log: String },
    #[error("node {node} could not do {command}: {reason}")]
    Refused { node: String, command: String, reason: String },
    #[error("{reason}\n{logs}")]
    Explained { reason: String, logs: String },
    #[error("not done within {seconds} s: {doing}")]
    TooLong { doing: String, seconds: u64 },
    #[error("a node sent a message that this driver does not know: {reason}")]
    Protocol { reason: String },
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
    #[error("cannot draw the plot: {reason}")]
    Plot { reason: String },
    #[error("cannot fill in the page")]
    Page {
        #[from]
        source: minijinja::Error,
    },
}

impl From<etf::Error> for Error {
    fn from(error: etf::Error) -> Self {
        Self::protocol(error.to_string())
    }
}

impl Error {
    /// For `map_err`: an I/O error with the action that failed.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub fn is_from_before_the_nodes(&self) -> bool {
        matches!(self, Self::Interrupted | Self::ElixirMissing { .. } | Self::RustNodeMissing { .. })
    }

    /// The error with all of its causes.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut behind = std::error::Error::source(self);
        while let Some(source) = behind {
            text.push_str(&format!(": {source}"));
            behind = source.source();
        }
        text
    }

    /// For `map_err`: an error of the plot library.
    pub fn plot(error: impl std::fmt::Display) -> Self {
        Self::Plot { reason: error.to_string() }
    }

    /// The error for a message that does not follow the protocol.
    pub fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol { reason: reason.into() }
    }
}

/// The exit code of a program that ends like this; an error is printed. After an interrupt the code is that of
/// a process that SIGINT ended.
pub fn exit(ended: anyhow::Result<ExitCode>) -> ExitCode {
    ended.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error:#}");
        let interrupted = matches!(error.downcast_ref(), Some(Error::Interrupted));
        ExitCode::from(if interrupted { 130 } else { 1 })
    })
}
