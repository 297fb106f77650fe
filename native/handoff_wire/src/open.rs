//! `drain_open`, `rebalance_open` and `opened`: a drain or a rebalance is requested and accepted.
//!
//! Guarantees
//! - The size of a drain is known and bounded before a server is sent.
//! - A Rust node of a release without rebalances never takes one for a drain: it is a kind of its own. Such a
//!   release ignores the key `goal` of the configuration, which must agree with the kind.

use etf::{Error, Fields, Pid, Term, map, read_u64, read_value, value};
use handoff_core::config::MAX_SERVERS;
use handoff_core::{Config, Goal};

use crate::body::{Body, DrainId, Value, body, exactly};

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
            ("supervisor", self.supervisor.term()),
            ("storage", self.storage.term()),
            ("count", self.count.term()),
            ("modules", self.modules.term()),
            ("config", value(&self.config)),
        ]);
        vec![self.id.term(), self.drainer.term(), spec]
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
        let config: Config = spec.need("config", read_value)?;
        if config.goal != goal {
            return Err(Error::Field { field: "goal", takes });
        }
        Ok(DrainOpen {
            id: Value::read(id, "id")?,
            drainer: Value::read(drainer, "drainer")?,
            supervisor: Value::of_key(&spec, "supervisor")?,
            storage: Value::of_key(&spec, "storage")?,
            count: spec.need("count", read_count)?,
            modules: Value::of_key(&spec, "modules")?,
            config,
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

fn read_count(term: &Term, field: &'static str) -> Result<u32, Error> {
    let count = read_u64(term, field)?;
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

body!(Opened = "opened": id);
