//! Erlang distribution: this process as a hidden node among BEAM nodes.
//!
//! ```text
//!   listener ─┐                       ┌─▶ mailbox of a registered process
//!             ├─ handshake ─ connection ─▶ waiting call
//!   dialler ──┘    │  ▲               └─▶ net_kernel, monitors, links: answered on the spot
//!        ▲         │  └── peers: who is connected; node: who is registered; watches: who is monitored and waited for
//!        └─ discovery (which nodes do the connected ones know?)
//! ```
//!
//! Guarantees
//! - Nothing a peer or a stranger sends ends the process, and what each can make it hold is bounded ([`limits`]).
//! - Messages of one peer reach a mailbox in order, `PeerUp` before and `PeerDown` after all of them.
//! - A call ends: with the answer, when the callee or the connection is gone, or at its deadline.

pub mod calls;
mod connection;
pub mod control;
pub mod cookie;
pub mod dialler;
pub mod epmd;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod listener;
mod mailbox;
pub mod names;
pub mod node;
mod peers;
mod signals;
#[cfg(test)]
mod testing;
pub mod tls;
mod watches;

pub use calls::CallError;
pub use control::Process;
pub use cookie::Cookie;
pub use limits::Limits;
pub use mailbox::{Delivery, Inbound, Mailbox, MonitorRef};
pub use names::{AllowList, NodeName};
pub use node::{Node, NodeOptions};
pub use peers::{PeerInfo, SendError};
