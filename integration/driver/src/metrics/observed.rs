//! What was observed in one mode.

use crate::beam::commands::{Calls, Counter};
use crate::beam::node::Node;
use crate::beam::node_config::Role;
use crate::history::{Drain, Record};
use crate::kept::FinalWrites;

/// A node, as far as figures need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedNode {
    pub label: String,
    pub name: String,
    pub is_app: bool,
    /// Its Elixir; empty before it is up.
    pub elixir: String,
    /// Its Erlang/OTP; empty before it is up.
    pub otp: String,
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

#[derive(Debug)]
pub struct Observed<'a> {
    /// Every node that was started; [`NodeId`]s index it.
    pub nodes: Vec<ObservedNode>,
    /// Moments of server processes, in any order.
    pub records: &'a [Record],
    /// When the deploy began. Times in the figures count from the first SIGTERM, or from here without one.
    pub began_us: u64,
    /// The nodes that were told to stop, in order.
    pub drains: &'a [Drain],
    pub calls: &'a Calls,
    /// Every server's counter at the end.
    pub counters: &'a [Counter],
    pub servers: u32,
    /// Whether every server was back within the bound.
    pub all_back: bool,
    /// Whether the store reliably takes the final writes of servers.
    pub final_writes: FinalWrites,
}
