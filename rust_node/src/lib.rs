//! `durable-handoff-node`: a hidden node that coordinates the drains of a BEAM cluster.
//!
//! It decides, and the draining nodes act. The only function that it calls on a BEAM node is
//! `erlang:nodes()`. It can be killed at any moment: the draining nodes then continue with their embedded
//! engines.
//!
//! ```text
//!   settings ─▶ commands ─▶ coordinator ─▶ service ─▶ handoff_core     who goes where, and when
//!                   │            │
//!                   ▼            ▼
//!                 http         distribution ◀─▶ BEAM nodes              sockets, TLS, handshake, frames
//! ```
//!
//! | to change | look at |
//! |---|---|
//! | what travels, and what each side does with it | the crate `handoff_wire` |
//! | connections, limits against hostile peers | [`distribution`] |
//! | drains: taking, sharing, forgetting them | [`service`] |
//! | the clock, announcing, stopping | [`coordinator`] |
//! | flags, variables, the file | [`settings`] |
//! | what is counted | [`metrics`] |
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]
// Input from outside must not be able to end the process.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

pub mod commands;
pub mod coordinator;
pub mod distribution;
pub mod http;
pub mod metrics;
pub mod open_files;
pub mod service;
pub mod settings;
