//! The real drain engine in a simulated cluster: virtual time, nodes, store and servers, with everything that
//! can go wrong.
//!
//! Guarantee: a run depends only on its scenario, which includes the seed. [`checker`] shares no code with
//! the engine and finds broken promises. The same seed shows one again:
//!
//! ```text
//! cargo run --release -p handoff_sim -- --seed N
//! ```
//!
//! | to change | look at |
//! |---|---|
//! | what is checked | [`checker`] |
//! | the scenarios with a name | [`scenario::named`] |
//! | what random scenarios are made of | [`scenario::random`] |
//! | how a rehome goes, and how it fails | [`world`] (its `rehome`) |
//! | nodes, clocks, heartbeats | [`cluster`] |
//! | the processors and the network around the store | [`world`] (its `noise`) |
//! | the object store | [`store`] |
//! | what the engine is compared with | [`baseline`] |
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
