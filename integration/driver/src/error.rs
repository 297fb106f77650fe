//! Everything that can end a run early.

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

    /// What starts a node cannot be executed.
    #[error("cannot start `{command}`, which every node needs (Debian: apt-get install elixir erlang)")]
    ElixirMissing {
        /// The command, `elixir` where nothing else was said.
        command: String,
        /// What the operating system said.
        source: io::Error,
    },

    /// The Rust node's program cannot be executed.
    #[error("cannot start {program}, which --executor node needs (cargo build --release --package rust_node)")]
    RustNodeMissing {
        program: std::path::PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A node's clock cannot be set.
    #[error("a node's clock cannot be set without libfaketime (Debian: apt-get install libfaketime)")]
    FaketimeMissing,

    /// A mixed cluster was asked for, and one release had no part in what happened.
    #[error("{reason}")]
    NotMixed { reason: String },

    /// A node ended although the driver did not stop it.
    #[error("node {node} ended by itself while {doing} ({status}); the end of its log:\n{log}")]
    NodeEnded {
        node: String,
        /// What the driver was doing.
        doing: String,
        /// Its exit status.
        status: String,
        /// The last lines it wrote.
        log: String,
    },

    /// A node answered a command with an error.
    #[error("node {node} could not do {command}: {reason}")]
    Refused {
        node: String,
        /// The command's name.
        command: &'static str,
        /// What it answered.
        reason: String,
    },

    /// An error of a run, with what its nodes said.
    #[error("{reason}\n{logs}")]
    Explained {
        /// The error and everything behind it.
        reason: String,
        /// Where the nodes' logs are.
        logs: String,
    },

    /// Something that has a bound took longer.
    #[error("not done within {seconds} s: {doing}")]
    TooLong {
        /// What was waited for.
        doing: String,
        seconds: u64,
    },

    /// A message that is not of the control protocol.
    #[error("a node sent a message that this driver does not know: {reason}")]
    Protocol {
        /// What is wrong with it.
        reason: String,
    },

    /// Reading or writing failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the operating system said.
        source: io::Error,
    },

    /// The plot could not be drawn.
    #[error("cannot draw the plot: {reason}")]
    Plot {
        /// What the plot library said.
        reason: String,
    },

    /// The page could not be filled in.
    #[error("cannot fill in the page")]
    Page {
        /// What the template engine said.
        #[from]
        source: minijinja::Error,
    },
}

/// What a node sent is not what the protocol promises.
impl From<etf::Error> for Error {
    fn from(error: etf::Error) -> Self {
        Self::protocol(error.to_string())
    }
}

impl Error {
    /// For `map_err`: an I/O error with what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Whether the nodes had no part in it.
    pub fn is_from_before_the_nodes(&self) -> bool {
        matches!(self, Self::Interrupted | Self::ElixirMissing { .. } | Self::RustNodeMissing { .. })
    }

    /// With everything behind it.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut behind = std::error::Error::source(self);
        while let Some(source) = behind {
            text.push_str(&format!(": {source}"));
            behind = source.source();
        }
        text
    }

    /// The status with which a program ends that failed, perhaps with one of these: after an interrupt what a
    /// shell reports for a process that SIGINT ended.
    pub fn exit_status(error: Option<&Self>) -> u8 {
        if matches!(error, Some(Self::Interrupted)) { 130 } else { 1 }
    }

    /// For messages that do not have the form the protocol promises.
    pub fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol { reason: reason.into() }
    }
}
