//! A node's configuration: one term in an environment variable, which only the owner of the process can read.

use etf::{Term, atom, boolean, encode, map, optional, text, tuple, uint};

use crate::random::digits;
use crate::settings::{REBALANCE_AFTER_MS, Settings};
use crate::variant::{Executor, Mode, Variant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holds the simulated object store.
    Store,
    /// Runs the clients. The node has a supervisor for its registry replica, which is marked as draining so
    /// that it never gets servers.
    Client,
    App,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its short name, unique in its cluster, as in the report.
    pub label: String,
    pub role: Role,
    /// The command that starts it.
    pub elixir: String,
    pub generation: u32,
    /// How many seconds the node's clock is ahead of the others'.
    pub clock_ahead_s: u32,
    /// Whether the node has the module that not every release has.
    pub newer: bool,
    /// How its servers are treated when it stops, if not as on the other nodes.
    pub mode: Option<Mode>,
}

/// The configuration that all nodes of a cluster share.
#[derive(Debug, Clone)]
pub struct Common {
    pub variant: Variant,
    /// The URL of the store; `None` if a node of the cluster is the store.
    pub store_url: Option<String>,
    /// Proves to the driver that a connection comes from one of its nodes.
    pub token: String,
    pub port: u16,
    /// Proves to a node that another one belongs to its cluster.
    pub cookie: String,
    /// A part of the names of all nodes of this cluster, and of no others.
    pub suffix: String,
}

impl Common {
    pub fn full_name(&self, label: &str) -> String {
        format!("{label}-{}@127.0.0.1", self.suffix)
    }
}

pub const STORE: &str = "store";

pub const RUST: &str = "rust";

impl NodeConfig {
    pub fn ahead_us(&self) -> u64 {
        u64::from(self.clock_ahead_s) * 1_000_000
    }

    /// The configuration as hexadecimal digits of the external term format.
    pub fn to_hex(&self, common: &Common, settings: &Settings) -> String {
        digits(&encode(&self.to_term(common, settings)).expect("its atoms and integers are short"))
    }

    fn to_term(&self, common: &Common, settings: &Settings) -> Term {
        let role = match self.role {
            Role::Store => "store",
            Role::Client => "client",
            Role::App => "app",
        };
        let store = match &common.store_url {
            Some(url) => tuple([atom("url"), text(url)]),
            None => tuple([atom("simulated"), text(&common.full_name(STORE))]),
        };
        let executor = match common.variant.executor {
            Executor::Embedded => atom("embedded"),
            Executor::Node => tuple([atom("node"), text(&common.full_name(RUST))]),
        };
        map([
            ("label", text(&self.label)),
            ("role", atom(role)),
            ("mode", atom(&self.mode.unwrap_or(common.variant.mode).to_string())),
            ("client", atom(&common.variant.client.to_string())),
            ("executor", executor),
            ("generation", text(&self.generation.to_string())),
            ("token", text(&common.token)),
            ("port", uint(common.port.into())),
            ("store", store),
            ("discovery_interval_ms", uint(settings.discovery_interval_ms.into())),
            ("heartbeat_interval_ms", uint(settings.heartbeat_interval_ms.into())),
            ("max_concurrency", uint(settings.max_concurrency.into())),
            ("concurrency", atom(&settings.concurrency.to_string())),
            ("timeout_ms", uint(settings.timeout_ms.into())),
            ("attempt_timeout_ms", uint(settings.attempt_timeout_ms.into())),
            ("heartbeat_max_age_ms", optional(settings.heartbeat_max_age_ms.map(|age_ms| uint(age_ms.into())))),
            ("slow_child_ms", uint(settings.slow_child_ms.into())),
            ("newer", boolean(self.newer)),
            ("start_leftovers", boolean(settings.start_leftovers)),
            ("rebalance_after_ms", optional(settings.rebalance.then(|| uint(REBALANCE_AFTER_MS.into())))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use etf::{atom_name, read_text};

    use super::*;
    use crate::args::Args;
    use crate::variant::Mode;

    #[test]
    fn the_configuration_of_a_node_contains_everything_but_the_cookie() {
        let settings = Args::try_parse_from(["integration/demo"]).unwrap().settings().unwrap();
        let common = Common {
            variant: Variant { executor: Executor::Node, ..Mode::Handoff.into() },
            store_url: None,
            token: "t0ken".into(),
            port: 4_711,
            cookie: "c00kie".into(),
            suffix: "ab12".into(),
        };
        let config = NodeConfig {
            label: "old1".into(),
            role: Role::App,
            elixir: "elixir".into(),
            generation: 1,
            clock_ahead_s: 0,
            newer: false,
            mode: None,
        };
        let hex = config.to_hex(&common, &settings);
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let Term::Map(sent) = Term::decode(bytes.as_slice()).unwrap() else { panic!("not a map") };
        assert_eq!(atom_name(&sent.map[&atom("mode")]), Some("handoff"));
        assert_eq!(sent.map[&atom("store")], tuple([atom("simulated"), text("store-ab12@127.0.0.1")]));
        assert_eq!(sent.map[&atom("executor")], tuple([atom("node"), text("rust-ab12@127.0.0.1")]));
        assert!(sent.map.values().all(|value| read_text(value, "value").ok().as_deref() != Some("c00kie")));
    }
}
