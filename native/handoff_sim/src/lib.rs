//! The real drain engine in a simulated cluster: virtual time, nodes, store and servers, with all kinds of
//! faults.
//!
//! Guarantee: a run depends only on its scenario, which includes the seed. [`checker`] shares no code with
//! the engine and reports violated guarantees. The same seed reproduces a run:
//!
//! ```text
//! cargo run --release -p handoff_sim -- --seed N
//! ```
//!
//! | to change | look at |
//! |---|---|
//! | the checks | [`checker`] |
//! | the named scenarios | [`scenario::named`] |
//! | the parts of random scenarios | [`scenario::random`] |
//! | the steps and failures of a rehome | [`world`] (its `rehome`) |
//! | nodes, clocks, heartbeats | [`cluster`] |
//! | processors and network around the store | [`world`] (its `noise`) |
//! | the object store | [`store`] |
//! | the baselines of the engine | [`baseline`] |
//! | the printed tables | [`tables`] |
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]

pub mod baseline;
pub mod check;
pub mod checker;
pub mod cluster;
pub mod decider;
pub mod event_queue;
pub mod random;
pub mod rebalance;
pub mod scenario;
pub mod servers;
pub mod store;
pub mod tables;
pub mod world;

pub use scenario::Scenario;
pub use world::{Outcome, run, run_traced};
