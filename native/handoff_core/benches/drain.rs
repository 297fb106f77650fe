//! The cost of decisions: a plan, a whole drain event by event, and the eligibility of a node.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use handoff_core::eligibility::{Query, check};
use handoff_core::time::Micros;
use handoff_core::{
    Action, Capacity, ClusterView, Config, Engine, Event, ModuleId, NodeView, Outcome, Scope, ServerSpec, Shared,
    Source, StickyId, plan,
};

const WALL: i64 = 1_800_000_000_000;

fn config() -> Config {
    Config { source: Source { name: "source@h".into(), ..Source::default() }, modules: 2, ..Config::default() }
}

fn view(nodes: u32) -> ClusterView {
    let node = |index: u32| NodeView {
        name: format!("node{index}@h"),
        stamp_ms: WALL,
        connected: true,
        servers: Some(u64::from(index % 50)),
        capacity: vec![Capacity { scope: Scope::Total, current: f64::from(index % 50), limit: 1e6 }],
        ..NodeView::default()
    };
    ClusterView { now_ms: WALL, nodes: (0..nodes).map(node).collect() }
}

fn servers(count: u32) -> Vec<ServerSpec> {
    (0..count).map(|id| ServerSpec { module: ModuleId(id % 2), sticky: StickyId(0), priority: 0 }).collect()
}

/// Polls and reports outcomes until the drain is over. Every attempt takes 40 ms.
fn drain(specs: &[ServerSpec], view: ClusterView) -> u64 {
    let config = config();
    let mut shared = Shared::new(&config);
    let mut now = Micros::from_millis(1);
    let mut engine = Engine::new(config, specs, view, now, &mut shared).expect("valid");
    let latency = Micros::from_millis(40);
    loop {
        let poll = engine.poll(now, &mut shared);
        now = now + latency;
        for action in poll.actions {
            match action {
                Action::Start { id, attempt, .. } => {
                    let event = Event::Finished { id, attempt, outcome: Outcome::Moved { node: None }, latency };
                    engine.on_event(now, event, &mut shared).expect("under way");
                }
                Action::Release { .. } => {}
                Action::Finish => return engine.report(now, &shared).moved,
            }
        }
    }
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    for (count, nodes) in [(10_000, 10), (10_000, 1_000)] {
        let specs = servers(count);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::from_parameter(format!("{count} servers, {nodes} nodes")), |bencher| {
            bencher.iter_batched(
                || view(nodes),
                |view| plan(&config(), &specs, view).expect("valid"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("drain");
    for (count, nodes) in [(1_000, 10), (1_000, 1_000)] {
        let specs = servers(count);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::from_parameter(format!("{count} servers, {nodes} nodes")), |bencher| {
            bencher.iter_batched(|| view(nodes), |view| drain(&specs, view), BatchSize::LargeInput);
        });
    }
    group.finish();

    let (config, view) = (config(), view(1_000));
    let query = Query::new(&config, ModuleId(0), &[]);
    let mut group = criterion.benchmark_group("eligibility");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 nodes", |bencher| {
        bencher.iter(|| view.nodes.iter().filter(|node| check(black_box(node), &query, WALL).is_ok()).count());
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
