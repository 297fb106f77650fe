//! What was observed in one mode.

use crate::beam::commands::{Calls, Counter};
use crate::beam::node::Node;
use crate::beam::node_config::Role;
use crate::history::{Drain, Record};
use crate::kept::FinalWrites;

/// A node, as far as figures need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedNode {
    /// Its name in the report.
    pub label: String,
    /// Its full name.
    pub name: String,
    /// Whether it runs servers.
    pub is_app: bool,
    /// Its Elixir; empty before it is up.
    pub elixir: String,
    /// Its Erlang/OTP; empty before it is up.
    pub otp: String,
    /// When it was up.
    pub up_us: Option<u64>,
}

impl From<&Node> for ObservedNode {
    fn from(node: &Node) -> Self {
        let (elixir, otp) = node.versions.as_ref().map(|of| (of.elixir.clone(), of.otp.clone())).unwrap_or_default();
        Self {
            label: node.config.label.clone(),
            name: node.name.clone(),
            is_app: node.config.role == Role::App,
            elixir,
            otp,
            up_us: node.up_us,
        }
    }
}

/// Everything that was observed in one mode.
#[derive(Debug)]
pub struct Observed<'a> {
    /// Every node that was started; [`NodeId`]s index it.
    pub nodes: Vec<ObservedNode>,
    /// Moments of server processes, in any order.
    pub records: &'a [Record],
    /// When the deploy began. Times in the figures count from the first SIGTERM, or from here if there is
    /// none.
    pub began_us: u64,
    /// The nodes that were told to stop, in order.
    pub drains: &'a [Drain],
    /// The results of the clients.
    pub calls: &'a Calls,
    /// Every server's counter at the end.
    pub counters: &'a [Counter],
    /// How many servers there are.
    pub servers: u32,
    /// Whether every server was back within the bound.
    pub all_back: bool,
    /// Whether the store reliably takes the final writes of servers.
    pub final_writes: FinalWrites,
}
