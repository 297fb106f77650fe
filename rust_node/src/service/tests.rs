//! Helpers of the tests of the service.

mod life;
mod mistakes;
mod rebalance;
mod sharing;

use handoff_core::event::{Blame, Event, Outcome};
use handoff_core::limiter::Concurrency;
use handoff_core::{Action, Config, ModuleId, NodeView, ServerId, ServerSpec, Source, StickyId};
use handoff_wire::{DrainClose, DrainOpen, DrainStart, Events, Keepalive, Opened, Servers, ViewPart};

use super::*;

const MS: fn(u64) -> Micros = Micros::from_millis;
const ID: DrainId = DrainId(7);

fn name(peer: &str) -> Arc<str> {
    peer.into()
}

fn drainer(peer: &str) -> Pid {
    Pid::new(peer, 100, 0, 1)
}

fn config(peer: &str) -> Config {
    Config {
        max_concurrency: 8,
        concurrency: Concurrency::Fixed,
        source: Source { name: peer.to_owned(), ..Source::default() },
        ..Config::default()
    }
}

fn open(peer: &str, count: u32) -> DrainOpen {
    DrainOpen {
        id: ID,
        drainer: drainer(peer),
        supervisor: "Sup".to_owned(),
        storage: "store".to_owned(),
        count,
        modules: vec!["M".to_owned()],
        config: config(peer),
    }
}

fn servers(first: u32, count: u32) -> Servers {
    let server = ServerSpec { module: ModuleId(0), sticky: StickyId(0), priority: 0 };
    Servers { id: ID, first, servers: vec![server; count as usize] }
}

fn view(targets: &[&str]) -> ViewPart {
    let node = |name: &&str| NodeView { name: (*name).to_owned(), connected: true, ..NodeView::default() };
    ViewPart { id: ID, part: 1, parts: 1, now_ms: 0, nodes: targets.iter().map(node).collect() }
}

fn finished(id: ServerId, attempt: u32, outcome: Outcome) -> Events {
    Events { id: ID, events: vec![Event::Finished { id, attempt, outcome, latency: MS(10) }] }
}

fn service() -> Service {
    Service::new(ServiceLimits::default(), Metrics::default())
}

/// Sends a message, advances the service, and returns the messages to the drain's process.
fn tell(service: &mut Service, now: Micros, peer: &str, message: impl Into<Message>) -> Vec<Message> {
    service.receive(now, &name(peer), Some(&drainer(peer)), message.into());
    service.advance(now);
    sent_to(service.take_outputs(), peer)
}

fn sent_to(outputs: Vec<Output>, peer: &str) -> Vec<Message> {
    let mine = |output| match output {
        Output::Send { peer: to, message, .. } if *to == *peer => Some(*message),
        _ => None,
    };
    outputs.into_iter().filter_map(mine).collect()
}

fn start(service: &mut Service, now: Micros, peer: &str, count: u32, targets: &[&str]) -> Vec<Message> {
    assert_eq!(tell(service, now, peer, open(peer, count)), [Opened { id: ID }.into()]);
    assert_eq!(tell(service, now, peer, servers(0, count)), []);
    assert_eq!(tell(service, now, peer, view(targets)), []);
    let mut answers = tell(service, now, peer, DrainStart { id: ID, left_ms: 30_000 });
    assert_eq!(answers.remove(0), Started { id: ID }.into());
    answers
}

fn starts(messages: &[Message]) -> Vec<(ServerId, u32, String)> {
    let orders = messages.iter().filter_map(|message| match message {
        Message::Orders(orders) => Some(&orders.actions),
        _ => None,
    });
    orders
        .flatten()
        .filter_map(|action| match action {
            Action::Start { id, attempt, target, .. } => Some((*id, *attempt, target.to_string())),
            _ => None,
        })
        .collect()
}

fn refusal(messages: &[Message]) -> Option<&RefuseReason> {
    messages.iter().find_map(|message| match message {
        Message::Refuse(refuse) => Some(&refuse.reason),
        _ => None,
    })
}
