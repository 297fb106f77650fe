//! `integration/bench drain`: one node with all servers is drained, by DurableServer's own shutdown, by plain
//! task streams and by `durable_handoff`, on several kinds of stores. Each drain is a run of the demo on new
//! nodes, so every figure is what the demo would show.
//!
//! A task stream needs a fixed number of moves at a time, and no number suits every store. So the ratios
//! compare `durable_handoff` with the best figure of any stream, chosen separately for each store, and for
//! gap and time.

pub mod args;
pub mod contender;
pub mod figures;
pub mod run;
pub mod shape;
pub mod table;
