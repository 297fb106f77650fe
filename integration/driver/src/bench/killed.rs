//! `integration/bench killed`: a node whose servers have something to store is told to stop, and killed some
//! seconds later. How many states are in storage then, with today's shutdown and with `durable_handoff`?
//!
//! Every figure is a cluster of its own: nodes boot, every server starts, every server counts once without
//! storing it, SIGTERM, SIGKILL. What counts is in storage, wherever its server runs.

pub mod args;
pub mod run;
pub mod table;
