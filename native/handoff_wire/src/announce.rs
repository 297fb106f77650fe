//! `announce` and `welcome`: how a Rust node and an agent find each other.
//!
//! Guarantee: an announcement with `accepting: false` revokes the earlier one. An agent sends its pid in
//! `welcome`, so that its end can be monitored.

use etf::{Error, Fields, Pid, Term, boolean, list, map, read_bool, read_each, read_pid, read_text, text};

use crate::body::{Body, exactly};

/// More goals than any release will have.
const MAX_GOALS: usize = 64;

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

impl Body for Announce {
    const KIND: &'static str = "announce";

    fn write(&self) -> Vec<Term> {
        let info = map([
            ("release", text(&self.release)),
            ("accepting", boolean(self.accepting)),
            ("goals", list(self.goals.iter().map(|goal| text(goal)))),
        ]);
        vec![self.node.clone().into(), info]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [node, info] = exactly(fields)?;
        let info = Fields::of(info, "announce")?;
        Ok(Announce {
            node: read_pid(node, "node")?,
            release: info.need("release", read_text)?,
            accepting: info.need("accepting", read_bool)?,
            goals: info
                .maybe("goals", |term, key| read_each(term, key, MAX_GOALS, |goal| read_text(goal, key)))?
                .unwrap_or_default(),
        })
    }
}

/// `{durable_handoff, 1, welcome, Pid, #{release}}`
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    pub agent: Pid,
    /// The library's release.
    pub release: String,
}

impl Body for Welcome {
    const KIND: &'static str = "welcome";

    fn write(&self) -> Vec<Term> {
        vec![self.agent.clone().into(), map([("release", text(&self.release))])]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [agent, info] = exactly(fields)?;
        let info = Fields::of(info, "welcome")?;
        Ok(Welcome { agent: read_pid(agent, "agent")?, release: info.need("release", read_text)? })
    }
}
