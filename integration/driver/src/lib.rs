//! The demo's driver. It starts operating-system BEAM nodes with durable servers and clients, takes nodes away the way a deploy does, and
//! says what the clients and the servers saw: once with the existing graceful shutdown, once with a naive handoff, once with
//! `durable_handoff`.
//!
//! It guarantees that the figures of all modes come from the same code, from one clock, from nodes and a store that no earlier mode has
//! touched, and that no node outlives the driver.
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`], [`settings`], [`store`], [`variant`], [`beams`] | the command line, checked, and what it means |
//! | [`paths`], [`random`] | what a run makes on this machine |
//! | [`beam`], [`rust_node`] | nodes as processes, the control connection, its messages |
//! | [`run`] | one mode on one cluster: the scenarios, step by step |
//! | [`history`], [`metrics`], [`quantiles`] | from recorded moments to figures; pure |
//! | [`report`], [`render`] | the figures as JSON, table, plot and page |
//! | [`bench`], [`faults`] | the same clusters measured on several stores, and broken |
//! | [`progress`], [`interrupt`], [`error`] | what the person at the terminal sees and does |

#![forbid(unsafe_code)]

pub mod args;
pub mod beam;
pub mod bench;
pub mod durations;
pub mod error;
pub mod faults;
pub mod flags;
pub mod history;
pub mod interrupt;
pub mod kept;
pub mod metrics;
pub mod paths;
pub mod process;
pub mod progress;
pub mod quantiles;
pub mod random;
pub mod releases;
pub mod render;
pub mod report;
pub mod run;
pub mod rust_node;
pub mod settings;
pub mod store;
pub mod tables;
pub mod variant;

pub use error::{Error, Result};
