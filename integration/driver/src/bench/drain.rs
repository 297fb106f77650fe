//! `integration/bench drain`: one node with all servers is drained, by today's shutdown, by plain task
//! streams and by `durable_handoff`, on stores of several shapes. Each drain is a run of the demo on nodes of
//! its own, so every figure is what the demo would have shown.
//!
//! A task stream needs a fixed number of servers to move at a time, and no number suits every store. So the ratios
//! compare `durable_handoff` with the best figure of any stream, chosen separately for each store, and for gap and
//! time.

pub mod args;
pub mod contender;
pub mod figures;
pub mod run;
pub mod shape;
pub mod table;
