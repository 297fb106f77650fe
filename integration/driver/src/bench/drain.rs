//! `integration/bench drain`: one node with all servers is drained, by today's shutdown, by plain task
//! streams and by `durable_handoff`, on stores of several shapes. Each drain is a run of the demo on nodes of
//! its own, so every figure is what the demo would have shown.
//!
//! What it is for: a task stream has to be told how many servers to move at once, and no number suits every
//! store. The best figure of any stream, another one for each store and for gap and time, is what the ratios
//! are made of.

pub mod args;
pub mod contender;
pub mod figures;
pub mod run;
pub mod shape;
pub mod table;
