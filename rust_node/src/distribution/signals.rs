//! Handles every message that a BEAM can send.
//!
//! Guarantee: every request is answered: a monitor or link to an absent process with `noproc`, an unlink with
//! its acknowledgement, a remote spawn with a refusal, a ping with `yes`. All other messages are delivered or
//! counted.

use std::sync::Arc;

use erl_dist::message::Message;
use erl_dist::term::PidOrAtom;
use etf::{Atom, Checked, FixInteger, Pid};
use tokio::sync::Semaphore;
use tracing::debug;

use super::calls;
use super::control::{Control, Process};
use super::node::Node;
use super::peers::Monitor;
use super::processes::{Delivery, Inbound};
use super::state::monitor_exit;
use crate::metrics::Metrics;

/// Bytes per unit of the allowance. The number of units fits a semaphore, and a small message costs at least
/// one unit.
const GRAIN: usize = 256;

/// The connection on which messages arrive.
pub(super) struct Reading {
    pub(super) node: Node,
    pub(super) peer: Arc<str>,
    id: u64,
    allowance: Arc<Semaphore>,
}

impl Reading {
    pub(super) fn new(node: &Node, peer: &Arc<str>, id: u64) -> Self {
        let grains = node.options().limits.inbound.div_ceil(GRAIN).max(1);
        Reading { node: node.clone(), peer: Arc::clone(peer), id, allowance: Arc::new(Semaphore::new(grains)) }
    }
}

pub(super) async fn handle(reading: &Reading, control: Control, payload: Option<Checked<'_>>) {
    let (node, peer) = (&reading.node, &*reading.peer);
    let ignored = |kind: &'static str| Metrics::count(&node.options().metrics.refused, kind);
    let answer = |message: Message| {
        if let Err(error) = node.push(peer, message) {
            debug!(peer, %error, "answer not sent");
        }
    };
    match (control, payload) {
        (Control::Send { to }, Some(payload)) => {
            if !node.answer_call(peer, &to, &payload) {
                deliver(reading, None, &Process::Pid(to), payload).await;
            }
        }
        (Control::RegSend { from, to }, Some(payload)) if to == "net_kernel" => net_kernel(reading, &from, &payload),
        (Control::RegSend { from, to }, Some(payload)) => {
            deliver(reading, Some(from), &Process::Name(to), payload).await
        }
        // This node creates no aliases.
        (Control::AliasSend { .. }, _) => ignored("no_such_process"),
        (Control::Link { from, to }, _) => {
            if !node.is_alive(&Process::Pid(to.clone())) {
                answer(Message::exit(to, from, etf::atom("noproc")));
            }
        }
        (Control::UnlinkId { id, from, to }, _) => {
            answer(Message::UnlinkIdAck(erl_dist::message::UnlinkIdAck { id, from_pid: to, to_pid: from }));
        }
        (Control::Monitor { from, to, reference }, _) => {
            let monitor = Monitor { reference, by: from, target: to };
            if !node.is_alive(&monitor.target) {
                answer(monitor_exit(monitor, "noproc"));
            } else if !node.hold_monitor(peer, monitor.clone()) {
                ignored("too_many_monitors");
                answer(monitor_exit(monitor, "system_limit"));
            }
        }
        (Control::Demonitor { reference }, _) => node.release_monitor(peer, &reference),
        (Control::MonitorExit { reference, reason }, payload) => {
            let reason = reason.or_else(|| {
                let reason = payload?.decode().ok()?;
                etf::atom_name(&reason).map(str::to_owned)
            });
            node.end_watch(peer, &reference, reason);
        }
        (Control::SpawnRequest { reference, from }, _) => {
            ignored("spawn");
            answer(Message::SpawnReply(erl_dist::message::SpawnReply {
                req_id: reference,
                to_pid: from,
                flags: FixInteger::from(0),
                result: PidOrAtom::Atom(Atom::from("notsup")),
            }));
        }
        // `control::parse` returns a payload for every send, so this case is an ignored message.
        (Control::Send { .. } | Control::RegSend { .. }, None) | (Control::Nothing, _) => {}
    }
}

/// Puts a message into a mailbox as soon as the peer's allowance has room; without a recipient it uses none.
async fn deliver(reading: &Reading, from: Option<Pid>, to: &Process, payload: Checked<'_>) {
    let metrics = &reading.node.options().metrics;
    if !reading.node.is_alive(to) {
        Metrics::count(&metrics.refused, "no_such_process");
        return;
    }
    let grains = u32::try_from(payload.as_bytes().len().div_ceil(GRAIN).max(1)).unwrap_or(u32::MAX);
    let allowance = &reading.allowance;
    let permit = match Arc::clone(allowance).try_acquire_many_owned(grains) {
        Ok(permit) => Some(permit),
        Err(_) => {
            metrics.throttled.inc();
            // Only this peer waits, with all of its messages.
            Arc::clone(allowance).acquire_many_owned(grains).await.ok()
        }
    };
    let make = || {
        let peer = Arc::clone(&reading.peer);
        Inbound::Message(Delivery { peer, from, payload: payload.into_owned(), _permit: permit })
    };
    if !reading.node.deliver(&reading.peer, reading.id, to, make) {
        Metrics::count(&metrics.refused, "no_such_process");
    }
}

/// Answers `{is_auth, Node}`, which `Node.ping` sends. `net_kernel` answers nothing else.
fn net_kernel(reading: &Reading, from: &Pid, payload: &Checked<'_>) {
    let request = payload.decode().ok().and_then(calls::Request::read);
    let is_ping = |request: &calls::Request| {
        etf::elements(&request.body).and_then(|body| body.first()).and_then(etf::atom_name) == Some("is_auth")
    };
    match request {
        Some(request) if is_ping(&request) => {
            let _gone = reading.node.reply(&reading.peer, from, request, etf::atom("yes"));
        }
        _ => Metrics::count(&reading.node.options().metrics.refused, "net_kernel"),
    }
}
