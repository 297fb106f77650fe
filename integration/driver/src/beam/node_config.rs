//! What a node is told when it boots: one term, in an environment variable that only the owner of the process can read.

use std::fmt::Write as _;

use eetf::Term;

use super::term::{atom, int, map, text};
use crate::settings::{Mode, Settings};

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holds the simulated object store.
    Store,
    /// Runs the clients. Has a supervisor for its registry replica, marked draining so that it never takes servers.
    Client,
    /// Runs servers.
    App,
}

/// A node to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its short name, unique in its cluster, as in the report.
    pub label: String,
    /// What it is for.
    pub role: Role,
    /// Its release.
    pub generation: u32,
}

/// What all nodes of one cluster have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// How servers are treated when a node stops.
    pub mode: Mode,
    /// Proves to the driver that a connection comes from one of its nodes.
    pub token: String,
    /// Where the driver listens.
    pub port: u16,
    /// Proves to a node that another one belongs to its cluster.
    pub cookie: String,
    /// In the name of every node of this cluster and of no other.
    pub suffix: String,
}

impl Common {
    /// The full name of the node with this label.
    pub fn full_name(&self, label: &str) -> String {
        format!("{label}-{}@127.0.0.1", self.suffix)
    }
}

/// The label of the node that holds the store.
pub const STORE: &str = "store";

impl NodeConfig {
    /// The configuration as hexadecimal digits of the external term format.
    pub fn to_hex(&self, common: &Common, settings: &Settings) -> String {
        let mut bytes = Vec::new();
        self.to_term(common, settings)
            .encode(&mut bytes)
            .expect("a map of atoms, binaries and integers encodes into memory");
        bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string succeeds");
            hex
        })
    }

    fn to_term(&self, common: &Common, settings: &Settings) -> Term {
        let role = match self.role {
            Role::Store => "store",
            Role::Client => "client",
            Role::App => "app",
        };
        map([
            ("label", text(&self.label)),
            ("role", atom(role)),
            ("mode", atom(&common.mode.to_string())),
            ("generation", text(&self.generation.to_string())),
            ("token", text(&common.token)),
            ("port", int(common.port.into())),
            ("store", text(&common.full_name(STORE))),
            ("discovery_interval_ms", int(settings.discovery_interval_ms.into())),
            ("heartbeat_interval_ms", int(settings.heartbeat_interval_ms.into())),
            ("max_concurrency", int(settings.max_concurrency.into())),
            ("concurrency", atom(&settings.concurrency.to_string())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;
    use crate::beam::term::{as_atom, as_text};

    #[test]
    fn a_node_is_told_everything_but_the_cookie() {
        let settings = Args::try_parse_from(["integration/demo"]).unwrap().settings().unwrap();
        let common = Common {
            mode: Mode::Handoff,
            token: "t0ken".into(),
            port: 4_711,
            cookie: "c00kie".into(),
            suffix: "ab12".into(),
        };
        let config = NodeConfig { label: "old1".into(), role: Role::App, generation: 1 };
        let hex = config.to_hex(&common, &settings);
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let Term::Map(sent) = Term::decode(bytes.as_slice()).unwrap() else { panic!("not a map") };
        assert_eq!(as_atom(&sent.map[&atom("mode")]).unwrap(), "handoff");
        assert_eq!(as_text(&sent.map[&atom("store")]).unwrap(), "store-ab12@127.0.0.1");
        assert!(sent.map.values().all(|value| as_text(value).ok().as_deref() != Some("c00kie")));
    }
}
