//! `announce` and `welcome`: how a Rust node and an agent find each other.
//!
//! Guarantee: an announcement with `accepting: false` revokes the earlier one. An agent sends its pid in
//! `welcome`, so that its end can be monitored.

use etf::Pid;

use crate::body::body;

/// `{durable_handoff, 1, announce, Pid, #{release, accepting, goals}}`
#[derive(Debug, Clone, PartialEq)]
pub struct Announce {
    /// The Rust node's process. A monitor on it ends with the node.
    pub node: Pid,
    /// The Rust node's release.
    pub release: String,
    /// Whether the node accepts drains. A node that is stopping accepts none.
    pub accepting: bool,
    /// Names of the goals that its sessions can have, see [`handoff_core::Goal`]. Empty from releases that only drain.
    pub goals: Vec<String>,
}

body!(Announce = "announce": node; info { release, accepting; goals });

/// `{durable_handoff, 1, welcome, Pid, #{release}}`
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    pub agent: Pid,
    /// The library's release.
    pub release: String,
}

body!(Welcome = "welcome": agent; info { release });
