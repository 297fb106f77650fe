//! BEAM nodes as operating-system processes, and the control connection that each opens to the driver.
//!
//! The connection carries frames of a 4-byte length and one term in the external term format. A node sends
//! events, the driver sends commands. A node halts when its connection closes, so that no node survives the
//! driver.

pub mod cluster;
pub mod commands;
pub mod events;
pub mod link;
pub mod node;
pub mod node_config;

pub use cluster::{Cluster, DrainEnd};
