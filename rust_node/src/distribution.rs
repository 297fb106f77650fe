//! Erlang distribution: this process as a hidden node among BEAM nodes.
//!
//! ```text
//!   listener ─┐                       ┌─▶ mailbox of a registered process
//!             ├─ handshake ─ connection ─▶ waiting call
//!   dialler ──┘    │  ▲               └─▶ net_kernel, monitors, links: answered on the spot
//!        ▲         │  └── state: peers (connected), processes (registered), watches (monitored), calls (under way)
//!        └─ discovery (which nodes do the connected ones know?)
//! ```
//!
//! Guarantees
//! - Nothing that a peer or an unauthenticated client sends can end the process. The memory that each of them
//!   can make it use is bounded ([`limits`]).
//! - Messages of one peer reach a mailbox in order, `PeerUp` before and `PeerDown` after all of them.
//! - Every call ends: with the answer, when the callee or the connection is gone, or at its deadline.

pub mod calls;
pub mod cause;
mod connection;
pub mod control;
pub mod cookie;
pub mod dial;
pub mod dialler;
pub mod dns;
pub mod epmd;
pub mod found;
pub mod frame;
pub mod handshake;
mod hosts;
pub mod limits;
pub mod listener;
pub mod names;
pub mod node;
mod numbers;
mod peers;
mod processes;
mod queue;
mod repeats;
mod resolve;
mod signals;
mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod troubles;
mod watches;

pub use calls::CallError;
pub use control::Process;
pub use cookie::Cookie;
pub use limits::Limits;
pub use names::{AllowList, NodeName, Seed};
pub use node::{Mailbox, Node, NodeOptions};
pub use peers::PeerInfo;
pub use processes::{Delivery, Inbound, MonitorRef};
pub use queue::SendError;
