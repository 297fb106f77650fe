//! The messages between BEAM nodes and the Rust node: checking, encoding, decoding.
//!
//! Guarantee: bytes are checked before they are decoded ([`etf::Checked`]), and a [`Message`] that was read
//! is within every limit stated here. This crate knows no socket, clock or process.
//!
//! # Messages and their order
//!
//! A message is a tuple `{durable_handoff, 1, Kind, ...}`: a tag, the version, a kind, the kind's fields. The
//! Rust node's end is registered as [`NODE_PROCESS`], a BEAM node's end ([`AGENT_PROCESS`]) is the library's
//! agent; a drain is between the Rust node and the process that drains. Text is a UTF-8 binary of at most
//! 4,096 bytes, absent values are `nil`, times are integers. Maps have atoms as keys; a key that is not known
//! is ignored, so a later release may add some. Servers are dense numbers from 0; keys and states never
//! travel.
//!
//! ```text
//!  Rust node                                BEAM node: agent            and one process for each drain
//!     │ announce ────────────────────────────▶│  (after connecting, every two seconds until welcome; monitors the pid)
//!     │◀──────────────────────────── welcome ─│  (the Rust node monitors the agent; on its end it announces again)
//!     │                                                                          │
//!     │◀──────────────────────────────────── drain_open (configuration, count) ──│  monitors the announced pid
//!     │ opened ─────────────────────────────────────────────────────────────────▶│  or refuse: embedded engine
//!     │◀──────────────────────────────────────────── servers (5,000 at a time) ──│
//!     │◀──────────────────────────────────────────── view (100 nodes at a time) ─│
//!     │◀───────────────────────────────────────────── drain_start (time left) ───│
//!     │ started ────────────────────────────────────────────────────────────────▶│
//!     │ orders: {start, Server, Target, Attempt, TimeoutMs} ... ────────────────▶│  runs the attempts
//!     │◀─────────────── events: {finished, Server, Attempt, Outcome, LatencyUs} ─│
//!     │ progress ───────────────────────────────────────────────────────────────▶│  every 500 ms
//!     │◀─────────────────────────────────────────────────────────── keepalive ───│  every 500 ms, from drain_open on
//!     │◀──────────────────────────────────────────────── view ───────────────────│  every second, and when a node comes or goes
//!     │ orders: finish, then report ────────────────────────────────────────────▶│
//!     │◀────────────────────────────────────────────────────────── drain_close ──│
//! ```
//!
//! # What the BEAM side does
//!
//! The **agent** answers every `announce` whose `accepting` is true with `welcome`, sent to the pid in it,
//! and monitors that pid. It gives the drains of its node the list of the nodes that have announced
//! themselves and are still there, with the goals that each can reach (`goals`; without that key only drains).
//! `accepting: false`, a `DOWN` or a `refuse` with `stopping` take a node off
//! that list.
//!
//! A **drain** sends to the name [`NODE_PROCESS`] on the announced pid's node, from the process that drains:
//! answers to what cannot be understood go to the sender. A rebalance opens with `rebalance_open` instead of
//! `drain_open`, at a node that has it among its `goals`; all else is the same. It monitors the announced
//! pid as soon as `drain_open` could be sent. It picks an id that its node has not used before, and sends `keepalive`
//! every [`KEEPALIVE_MS`] from `drain_open` on. After `opened` it sends `servers`, the first `view` and
//! `drain_start`, without waiting in between. `orders` are the embedded engine's actions and `events` its events,
//! in the same shapes, so one loop serves both. The embedded engine follows from the start: it applies every order before
//! that is executed, and every event. So it knows at any moment where each server is, and detects invalid
//! orders. The drain drops the Rust node and continues with the embedded engine after an invalid order, a
//! `refuse` for its drain, the `DOWN` of the announced pid, [`SILENCE_MS`] without a message, or a message
//! that it cannot send. Orders that arrive after that are ignored; `drain_close` tells the Rust node.
//! Attempts under way continue. The deadline and a cancel are carried out at the source, which then closes
//! the drain. After `finish` comes the `report`. Only the report ends the drain; it has the reasons why
//! servers were left that were never tried.
//!
//! # What the Rust node does
//!
//! It identifies a drain by its connection and its id. It answers a message for an unknown drain with
//! `refuse` and `unknown_drain`, an unknown kind with `invalid`, and a newer version with `{version, Got,
//! 1}`. It forgets a drain on `drain_close`, when the drain's process or connection ends, after
//! [`SILENCE_MS`] without a message (answering `silent`), and when it stops (answering `stopping`). It never
//! sends anything but the messages above.
//!
//! # An operator
//!
//! ```text
//!  command line                                 agent
//!     │ describe ────────────────────────────────▶│
//!     │◀─────────────────────────── description ──│
//!     │ drain_request ───────────────────────────▶│
//!     │◀──── drain_step (every 500 ms) ... ───────│
//!     │◀────── drain_done, plan or refuse ────────│
//!     │ rebalance_request: answered the same way ▶│
//!     │ cordon_request ──────────────────────────▶│
//!     │◀──────────────── cordon_done or refuse ───│
//!     │ move_request ────────────────────────────▶│
//!     │◀──── drain_step (every 500 ms) ... ───────│
//!     │◀────────────────── move_done or refuse ───│
//! ```
//!
//! An agent of an earlier release does not answer unknown kinds. Its `description` shows what it knows:
//! without `cordoned` it knows neither `cordon_request` nor the messages that were added with it.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]
// Input from outside must not be able to end the process.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

pub mod announce;
mod body;
pub mod drain;
pub mod error;
pub mod message;
pub mod open;
pub mod operator;
pub mod refuse;
pub mod servers;
pub mod view;

pub use announce::{Announce, Welcome};
pub use body::DrainId;
pub use drain::{
    DrainClose, DrainStart, Events, KEEPALIVE_MS, Keepalive, Orders, ProgressUpdate, ReportMessage, SILENCE_MS, Started,
};
pub use error::WireError;
pub use message::{AGENT_PROCESS, Message, NODE_PROCESS, VERSION};
pub use open::{DrainOpen, Opened, RebalanceOpen};
pub use operator::{
    CordonDone, CordonRequest, Describe, Description, DrainDone, DrainRequest, DrainStep, MoveDone, MoveRequest,
    PlanDone, PlanSummary, REBALANCE_AFTER_MS, REBALANCE_SETTINGS, RebalanceRequest, RequestId, SupervisorInfo,
};
pub use refuse::{Refuse, RefuseReason};
pub use servers::Servers;
pub use view::{ViewPart, ViewParts};
