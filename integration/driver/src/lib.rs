//! The demo's driver. It starts operating-system BEAM nodes with durable servers and clients, stops nodes as
//! a deploy does, and reports the gaps of servers and the results of client calls: with DurableServer's
//! graceful shutdown, with a naive handoff, and with `durable_handoff`.
//!
//! Guarantees: the figures of all modes come from the same code and one clock, each mode has new nodes and a
//! new store, and no node outlives the driver.
//!
//! | module | content |
//! |---|---|
//! | [`args`], [`flags`], [`settings`], [`store`], [`variant`], [`releases`] | the command line, checked, and
//! its meaning |
//! | [`paths`], [`random`] | files, names and secrets of a run |
//! | [`beam`], [`rust_node`], [`process`] | nodes as processes, the control connection, its messages |
//! | [`run`] | one mode on one cluster: the scenarios, step by step |
//! | [`history`], [`kept`], [`metrics`], [`quantiles`] | computes figures from recorded moments; pure |
//! | [`report`], [`render`], [`tables`], [`durations`] | the figures as JSON, table, plot and page |
//! | [`bench`], [`faults`] | the same clusters, measured on several stores, and with faults |
//! | [`progress`], [`interrupt`], [`error`] | progress, Ctrl-C, errors |

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]

pub mod args;
pub mod beam;
pub mod bench;
pub mod cpu;
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
