//! `drain_open`, `rebalance_open` and `opened`: a drain or a rebalance is requested and accepted.
//!
//! Guarantees
//! - The size of a drain is known and bounded before a server is sent.
//! - A Rust node of a release without rebalances never takes one for a drain: it is a kind of its own. Such a
//!   release ignores the key `goal` of the configuration, which must agree with the kind.

use etf::{
    Error, Fields, Pid, Term, list, map, read_each, read_pid, read_text, read_u64, read_value, text, uint, value,
};
use handoff_core::config::MAX_SERVERS;
use handoff_core::{Config, Goal};

use crate::body::{Body, DrainId, exactly, read_id};

/// More callback modules than this are an error.
pub const MAX_MODULES: usize = 10_000;

/// `{durable_handoff, 1, drain_open, Id, DrainerPid, #{supervisor, storage, count, modules, config}}`
#[derive(Debug, Clone, PartialEq)]
pub struct DrainOpen {
    /// The drain, numbered by its node.
    pub id: DrainId,
    /// The process that receives the orders. It is monitored for as long as the drain lasts.
    pub drainer: Pid,
    /// The supervisor's name, for people.
    pub supervisor: String,
    /// Identifies the object storage and prefix. Drains with the same text share ledger and limiter. The text
    /// is compared and never parsed, so it can be a hash of the backend's options.
    pub storage: String,
    /// How many servers will follow.
    pub count: u32,
    /// Names of the callback modules, in the order of their indices. Each drain has its own numbers; drains
    /// on one storage identify a module by its name.
    pub modules: Vec<String>,
    /// The configuration of the embedded engine. `drain_start` replaces its `timeout_ms` by the time left.
    pub config: Config,
}

impl Body for DrainOpen {
    const KIND: &'static str = "drain_open";

    fn write(&self) -> Vec<Term> {
        let spec = map([
            ("supervisor", text(&self.supervisor)),
            ("storage", text(&self.storage)),
            ("count", uint(self.count.into())),
            ("modules", list(self.modules.iter().map(|name| text(name)))),
            ("config", value(&self.config)),
        ]);
        vec![uint(self.id.0), self.drainer.clone().into(), spec]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        DrainOpen::read_goal(fields, Goal::Drain, "drain, or the message rebalance_open")
    }
}

impl DrainOpen {
    /// Reads the message for that goal.
    fn read_goal(fields: &[Term], goal: Goal, takes: &'static str) -> Result<Self, Error> {
        let [id, drainer, spec] = exactly(fields)?;
        let spec = Fields::of(spec, "drain_open")?;
        let count = spec.need("count", read_u64)?;
        let modules =
            spec.need("modules", |term, key| read_each(term, key, MAX_MODULES, |name| read_text(name, key)))?;
        let config: Config = spec.need("config", read_value)?;
        if config.goal != goal {
            return Err(Error::Field { field: "goal", takes });
        }
        Ok(DrainOpen {
            id: read_id(id)?,
            drainer: read_pid(drainer, "drainer")?,
            supervisor: spec.need("supervisor", read_text)?,
            storage: spec.need("storage", read_text)?,
            count: read_count(count)?,
            config,
            modules,
        })
    }
}

/// `{durable_handoff, 1, rebalance_open, Id, DrainerPid, Spec}`: as `drain_open`, with the goal `rebalance` in its
/// configuration. From then on it is a drain like any other.
#[derive(Debug, Clone, PartialEq)]
pub struct RebalanceOpen(pub DrainOpen);

impl Body for RebalanceOpen {
    const KIND: &'static str = "rebalance_open";

    fn write(&self) -> Vec<Term> {
        self.0.write()
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        DrainOpen::read_goal(fields, Goal::Rebalance, "rebalance, or the message drain_open").map(RebalanceOpen)
    }
}

fn read_count(count: u64) -> Result<u32, Error> {
    let got = usize::try_from(count).unwrap_or(usize::MAX);
    u32::try_from(count).ok().filter(|_| got <= MAX_SERVERS).ok_or(Error::TooMany {
        what: "servers of a drain",
        got,
        takes: MAX_SERVERS,
    })
}

/// `{durable_handoff, 1, opened, Id}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    pub id: DrainId,
}

impl Body for Opened {
    const KIND: &'static str = "opened";

    fn write(&self) -> Vec<Term> {
        vec![uint(self.id.0)]
    }

    fn read(fields: &[Term]) -> Result<Self, Error> {
        let [id] = exactly(fields)?;
        Ok(Opened { id: read_id(id)? })
    }
}
