//! One column of the comparison: how servers are treated, which executor decides, and how clients call.

use std::fmt;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::flags::shown_as_flag;

/// How a node's servers are treated when it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// DurableServer's own shutdown, without handoff
    Graceful,
    /// A plain task stream over `rehome_child`
    Naive,
    /// `durable_handoff`
    Handoff,
}

/// What decides in a drain of handoff mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Executor {
    /// The engine inside each draining node
    Embedded,
    /// One `durable-handoff-node run` for all of them
    Node,
}

/// How clients call servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    /// `lookup` and `GenServer.call`; a failed call is counted and not repeated
    Plain,
    /// `DurableHandoff.call`, which waits for a server that moves
    Handoff,
}

shown_as_flag!(Mode, Executor, Client);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    pub mode: Mode,
    pub executor: Executor,
    /// Whether the Rust node is killed in the middle of the drain.
    pub killed: bool,
    pub client: Client,
    /// Whether other columns differ in how clients call, so that the name must include it.
    pub names_client: bool,
}

impl Variant {
    /// Every column that the flags request, in the order of the runs: all modes, for handoff all executors,
    /// and for each of these all clients.
    pub fn all(modes: &[Mode], executors: &[Executor], kill_node: bool, clients: &[Client]) -> Vec<Self> {
        let of_mode = |&mode: &Mode| match mode {
            Mode::Handoff => executors
                .iter()
                .flat_map(|&executor| match executor {
                    Executor::Node if kill_node => vec![(mode, executor, false), (mode, executor, true)],
                    _ => vec![(mode, executor, false)],
                })
                .collect(),
            _ => vec![(mode, Executor::Embedded, false)],
        };
        let names_client = clients.len() > 1;
        modes
            .iter()
            .flat_map(of_mode)
            .flat_map(|(mode, executor, killed)| {
                clients.iter().map(move |&client| Self { mode, executor, killed, client, names_client })
            })
            .collect()
    }

    pub fn name(&self) -> String {
        let executor = match (self.executor, self.killed) {
            (Executor::Embedded, _) => "",
            (Executor::Node, false) => " (node)",
            (Executor::Node, true) => " (node killed)",
        };
        let client = if self.names_client { format!(", {} calls", self.client) } else { String::new() };
        format!("{}{executor}{client}", self.mode)
    }

    /// A name for file names and style rules, unique among the columns.
    pub fn slug(&self) -> String {
        let executor = match (self.executor, self.killed) {
            (Executor::Embedded, _) => "",
            (Executor::Node, false) => "-node",
            (Executor::Node, true) => "-node-killed",
        };
        let client = if self.client == Client::Handoff { "-calls" } else { "" };
        format!("{}{executor}{client}", self.mode)
    }

    /// Whether it has this mode and this executor, and the Rust node is not killed.
    pub fn is(&self, mode: Mode, executor: Executor) -> bool {
        self.mode == mode && self.executor == executor && !self.killed
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl Serialize for Variant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// The mode with the defaults of all other fields.
impl From<Mode> for Variant {
    fn from(mode: Mode) -> Self {
        Self { mode, executor: Executor::Embedded, killed: false, client: Client::Plain, names_client: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(modes: &[Mode], executors: &[Executor], kill: bool, clients: &[Client]) -> Vec<String> {
        Variant::all(modes, executors, kill, clients).iter().map(Variant::name).collect()
    }

    #[test]
    fn only_handoff_has_executors() {
        let modes = [Mode::Naive, Mode::Handoff];
        let executors = [Executor::Embedded, Executor::Node];
        assert_eq!(names(&modes, &executors, false, &[Client::Plain]), ["naive", "handoff", "handoff (node)"]);
        assert_eq!(
            names(&modes, &executors, true, &[Client::Plain]),
            ["naive", "handoff", "handoff (node)", "handoff (node killed)"]
        );
    }

    #[test]
    fn clients_are_in_the_name_if_they_differ() {
        let modes = [Mode::Naive, Mode::Handoff];
        assert_eq!(names(&modes, &[Executor::Embedded], false, &[Client::Handoff]), ["naive", "handoff"]);
        assert_eq!(
            names(&modes, &[Executor::Embedded], false, &[Client::Plain, Client::Handoff]),
            ["naive, plain calls", "naive, handoff calls", "handoff, plain calls", "handoff, handoff calls"]
        );
    }

    #[test]
    fn each_column_has_its_own_slug() {
        let modes = [Mode::Graceful, Mode::Naive, Mode::Handoff];
        let clients = [Client::Plain, Client::Handoff];
        let mut slugs: Vec<_> = Variant::all(&modes, &[Executor::Embedded, Executor::Node], true, &clients)
            .iter()
            .map(Variant::slug)
            .collect();
        let count = slugs.len();
        slugs.sort();
        slugs.dedup();
        assert_eq!(slugs.len(), count);
    }
}
