//! The cost of a message: the check alone, reading, writing.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use handoff_core::event::{Event, Outcome};
use handoff_core::time::Micros;
use handoff_core::{Capacity, ClusterView, NodeView, Scope, ServerId};
use handoff_wire::{DrainId, Events, Message, ViewPart};

fn view() -> Message {
    let node = |index: u32| NodeView {
        name: format!("node{index}@host.example"),
        stamp_ms: 1_800_000_000_000,
        connected: true,
        servers: Some(100),
        region: Some("europe-west1".into()),
        capacity: vec![Capacity { scope: Scope::Total, current: 100.0, limit: 1_000.0 }],
        env: vec![("FLY_REGION".into(), "ord".into())],
        ..NodeView::default()
    };
    let view = ClusterView { now_ms: 1_800_000_000_000, nodes: (0..100).map(node).collect() };
    Message::View(ViewPart::split(DrainId(1), view).remove(0))
}

fn events() -> Message {
    let event = |id| Event::Finished {
        id: ServerId(id),
        attempt: 1,
        outcome: Outcome::Moved { node: None },
        latency: Micros::from_millis(40),
    };
    Message::Events(Events { id: DrainId(1), events: (0..1_000).map(event).collect() })
}

fn benches(criterion: &mut Criterion) {
    for (name, message) in [("view of 100 nodes", view()), ("1,000 events", events())] {
        let bytes = message.to_bytes().expect("a message can be written");
        let mut group = criterion.benchmark_group("message");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("check", name), |bencher| {
            bencher.iter(|| etf::Checked::whole(black_box(&bytes)))
        });
        group.bench_function(BenchmarkId::new("read", name), |bencher| {
            bencher.iter(|| Message::from_bytes(black_box(&bytes)));
        });
        group
            .bench_function(BenchmarkId::new("write", name), |bencher| bencher.iter(|| black_box(&message).to_bytes()));
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
