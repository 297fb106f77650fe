//! `integration/bench killed`: a node whose servers have unsaved changes is told to stop, and killed some
//! seconds later. Then counts the states in storage, with DurableServer's own shutdown and with
//! `durable_handoff`.
//!
//! Every figure comes from a cluster of its own: nodes boot, all servers start, every server increments its
//! counter once without storing it, then the node gets SIGTERM and later SIGKILL. A state counts if it is in
//! storage, wherever its server runs.

pub mod args;
pub mod run;
pub mod table;
