//! Everything that `durable_handoff` decides: which nodes may take a server, which one does, when, how many
//! at a time, and when to stop trying.
//!
//! Pure: no clock, no I/O, no threads, no randomness. Time enters as an argument ([`time::Micros`]), events
//! enter through [`Engine::on_event`], decisions leave through [`Engine::poll`]. The caller (a NIF, the Rust
//! node, a simulator) runs the attempts and reports their outcomes.
//!
//! | to change | look at |
//! |---|---|
//! | DurableServer's placement rules | [`eligibility`] |
//! | which eligible node is best | [`placement`], [`freshness`] |
//! | what counts as a node's load | [`placement`] (its `load`), [`ledger`] |
//! | the order of servers | [`pending`] |
//! | shares, and what a rebalance moves | [`balance`], [`engine`] (its `rebalance`) |
//! | how many attempts at a time, how many starts a second | [`limiter`], [`pace`] |
//! | what a failure means | [`engine`] (its `outcome`), [`cooldown`], [`store_health`], [`breaker`] |
//! | when a drain starts, settles and ends | [`engine`] |
//! | progress and report | [`report`], [`quantiles`], [`reason`] |
#![forbid(unsafe_code)]

pub mod balance;
pub mod breaker;
pub mod config;
pub mod cooldown;
pub mod eligibility;
pub mod engine;
pub mod event;
pub mod freshness;
pub mod ids;
pub mod ledger;
pub mod limiter;
pub mod pace;
pub mod pending;
pub mod placement;
pub mod plan;
pub mod quantiles;
pub mod reason;
pub mod report;
#[cfg(feature = "serde")]
pub mod shape;
pub mod shared;
pub mod store_health;
pub mod time;
pub mod unserved;
pub mod view;

pub use balance::Idle;
pub use config::{Config, Goal, Prefer, Source, StickyLevel, StickyPolicy};
pub use engine::{Engine, ServerSpec};
pub use event::{Action, Blame, EngineError, Event, Outcome, Poll};
pub use ids::{ModuleId, NodeId, ServerId, StickyId};
pub use plan::{Plan, plan};
pub use reason::Reason;
pub use report::{AtATime, Balance, Ended, NodeShare, Progress, Report, WaitsFor};
pub use shared::Shared;
pub use view::{Capacity, ClusterView, NodeView, Resources, Scope, Usage};
