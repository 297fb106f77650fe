//! The errors that end a run early.

use std::io;

/// The driver's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run ended before its table. The nodes are ended in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,

    /// The command that starts nodes cannot be executed.
    #[error("cannot start `{command}`, which every node needs (Debian: apt-get install elixir erlang)")]
    ElixirMissing {
        /// The command; `elixir` by default.
        command: String,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The Rust node's program cannot be executed.
    #[error("cannot start {program}, which --executor node needs (cargo build --release --package rust_node)")]
    RustNodeMissing {
        program: std::path::PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A node's clock cannot be set.
    #[error("a node's clock cannot be set without libfaketime (Debian: apt-get install libfaketime)")]
    FaketimeMissing,

    /// A mixed cluster was requested, and one release ran no server.
    #[error("{reason}")]
    NotMixed { reason: String },

    /// A node ended although the driver did not stop it.
    #[error("node {node} ended by itself while {doing} ({status}); the end of its log:\n{log}")]
    NodeEnded {
        node: String,
        /// The step of the driver.
        doing: String,
        /// The exit status of the node.
        status: String,
        /// The last lines of the node's output.
        log: String,
    },

    /// A node answered a command with an error.
    #[error("node {node} could not do {command}: {reason}")]
    Refused {
        node: String,
        /// The command's name.
        command: String,
        /// The node's error.
        reason: String,
    },

    /// An error of a run, with the logs of its nodes.
    #[error("{reason}\n{logs}")]
    Explained {
        /// The error with all of its causes.
        reason: String,
        /// Where the nodes' logs are.
        logs: String,
    },

    /// A step exceeded its time limit.
    #[error("not done within {seconds} s: {doing}")]
    TooLong {
        /// The step.
        doing: String,
        seconds: u64,
    },

    /// A message that is not of the control protocol.
    #[error("a node sent a message that this driver does not know: {reason}")]
    Protocol {
        /// What is wrong with the message.
        reason: String,
    },

    /// Reading or writing failed.
    #[error("{doing}")]
    Io {
        /// The action that failed.
        doing: String,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The plot could not be drawn.
    #[error("cannot draw the plot: {reason}")]
    Plot {
        /// The error of the plot library.
        reason: String,
    },

    /// The page could not be filled in.
    #[error("cannot fill in the page")]
    Page {
        /// The error of the template engine.
        #[from]
        source: minijinja::Error,
    },
}

/// A message of a node does not follow the protocol.
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

    /// Whether the error occurred before any node ran.
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

    /// The exit status of a program that failed with this error. After an interrupt it is that of a process
    /// that SIGINT ended.
    pub fn exit_status(error: Option<&Self>) -> u8 {
        if matches!(error, Some(Self::Interrupted)) { 130 } else { 1 }
    }

    /// The error for a message that does not follow the protocol.
    pub fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol { reason: reason.into() }
    }
}
