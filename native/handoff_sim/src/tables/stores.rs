//! Gap and drain time with the adaptive limiter and with the best fixed limit, which is unknown before a real
//! drain.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use comfy_table::Table;
use handoff_core::Config;
use handoff_core::limiter::{Concurrency, Learnt};
use handoff_core::time::Micros;
use serde::Serialize;

use crate::event_queue::millis;
use crate::random::Random;
use crate::scenario::deploy::Deploy;
use crate::scenario::named::{NAMED, Named};
use crate::scenario::{Noise, Scenario};
use crate::store::{Paced, Store, StoreShape, Weather};
use crate::tables::{median, table};
use crate::world::{self, Outcome};

/// Fixed concurrencies that are tried.
const FIXED: [u32; 8] = [1, 2, 4, 8, 12, 16, 32, 50];
/// The best fixed limit has the lowest p99 among those whose drain takes at most this many times the fastest
/// one.
const SLOWER: f64 = 1.2;
/// Servers in a drain: enough for quantiles, as few as a small production node has.
pub const SERVERS: u32 = 500;

/// Figures of a configuration on a store, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    pub p50: f64,
    /// The 99th percentile of the gaps.
    pub p99: f64,
    pub drain: f64,
}

/// A store, and the delays of attempts around it.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: &'static str,
    pub store: StoreShape,
    /// The delays around the store.
    pub noise: Noise,
    pub servers: u32,
}

/// The stores of the table.
pub fn shapes() -> Vec<Shape> {
    let quiet = |name, store| Shape { name, store, noise: Noise::default(), servers: SERVERS };
    let paced = |busy| StoreShape { paced: Some(Paced { stored_ms: 300, busy }), ..StoreShape::steady(None, 10.0) };
    let spread = |slots, latency_ms, sigma| StoreShape { sigma, ..StoreShape::steady(slots, latency_ms) };
    let worse = vec![(1_000, 60_000, Weather::Slow(4.0))];
    let busy = Noise { cpu_ms: 1.0, jitter_ms: 3.0, stalls: (1.5, 15.0), ..Noise::default() };
    let loops = Noise { cpu_ms: 0.25, busy_ms: 3.0, jitter_ms: 0.5, ..Noise::default() };
    let overloaded = Noise { stalls: (6.0, 30.0), ..loops };
    let slow_stops = Noise { cpu_ms: 0.3, slow_stop: (0.02, 800.0), ..Noise::default() };
    vec![
        quiet("8 slots, 10 ms", StoreShape::steady(Some(8), 10.0)),
        quiet("2 slots, 10 ms", StoreShape::steady(Some(2), 10.0)),
        quiet("32 slots, 25 ms, spread", spread(Some(32), 25.0, 0.4)),
        quiet("no queue, 10 ms, spread", spread(None, 10.0, 0.4)),
        quiet("16 slots, 100 ms", StoreShape::steady(Some(16), 100.0)),
        quiet("8 slots, 10 ms, then 40 ms", StoreShape { weather: worse, ..StoreShape::steady(Some(8), 10.0) }),
        quiet("no queue, 10 ms, a write a second and key", paced(0.0)),
        quiet("the same, a third of servers busy", paced(0.33)),
        Shape {
            name: "8 slots, 10 ms, busy machine",
            store: StoreShape::steady(Some(8), 10.0),
            noise: busy,
            servers: SERVERS,
        },
        Shape {
            name: "no queue, 10 ms, busy machine",
            store: StoreShape::steady(None, 10.0),
            noise: busy,
            servers: SERVERS,
        },
        Shape {
            name: "no queue, 10 ms, two busy loops",
            store: StoreShape::steady(None, 10.0),
            noise: loops,
            servers: SERVERS,
        },
        Shape {
            name: "no queue, 10 ms, overloaded",
            store: StoreShape::steady(None, 10.0),
            noise: overloaded,
            servers: SERVERS,
        },
        Shape {
            name: "8 slots, 10 ms, overloaded",
            store: StoreShape::steady(Some(8), 10.0),
            noise: overloaded,
            servers: SERVERS,
        },
        Shape {
            name: "no queue, 10 ms, slow stops",
            store: StoreShape::steady(None, 10.0),
            noise: slow_stops,
            servers: SERVERS,
        },
    ]
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub store: &'static str,
    /// The fixed concurrency that was best there.
    pub best_fixed: u32,
    pub fixed: Measured,
    /// The figures of the adaptive limiter.
    pub adaptive: Measured,
    /// The figures of the adaptive limiter divided by the fixed ones.
    pub ratio: Measured,
}

/// One row for each store shape.
pub fn stores(seeds: u64) -> Vec<Row> {
    shapes().iter().filter_map(|shape| row(shape, seeds)).collect()
}

fn row(shape: &Shape, seeds: u64) -> Option<Row> {
    let all = FIXED.map(|fixed| (fixed, measure(shape, Some(fixed), seeds)));
    let fastest = all.iter().map(|(_, it)| it.drain).fold(f64::INFINITY, f64::min);
    let quick = all.into_iter().filter(|(_, it)| it.drain <= fastest * SLOWER);
    let (best_fixed, fixed) = quick.min_by(|a, b| a.1.p99.total_cmp(&b.1.p99))?;
    let adaptive = measure(shape, None, seeds);
    let ratio =
        Measured { p50: adaptive.p50 / fixed.p50, p99: adaptive.p99 / fixed.p99, drain: adaptive.drain / fixed.drain };
    Some(Row { store: shape.name, best_fixed, fixed, adaptive, ratio })
}

pub fn text(rows: &[Row]) -> Table {
    let mut text = table(&[
        "store",
        "best fixed",
        "gap p50",
        "gap p99",
        "drain",
        "adaptive: gap p50",
        "gap p99",
        "drain",
        "ratio p50",
        "p99",
        "drain",
    ]);
    for row in rows {
        let mut cells = vec![row.store.to_owned(), row.best_fixed.to_string()];
        for it in [row.fixed, row.adaptive] {
            cells.extend([it.p50, it.p99, it.drain].map(|number| format!("{number:.0} ms")));
        }
        cells.extend([row.ratio.p50, row.ratio.p99, row.ratio.drain].map(|number| format!("{number:.2}")));
        text.add_row(cells);
    }
    text
}

/// Drains to three nodes, with a fixed concurrency or the adaptive limiter; medians over the seeds.
pub fn measure(shape: &Shape, fixed: Option<u32>, seeds: u64) -> Measured {
    let runs: Vec<Measured> = (0..seeds).map(|seed| drain(shape, fixed, seed)).collect();
    let of = |figure: fn(&Measured) -> f64| median(runs.iter().map(figure).collect());
    Measured { p50: of(|run| run.p50), p99: of(|run| run.p99), drain: of(|run| run.drain) }
}

pub fn drain(shape: &Shape, fixed: Option<u32>, seed: u64) -> Measured {
    measured(&world::run(scenario(shape, fixed, seed)))
}

/// A drain that starts from what was learnt.
pub fn drain_from(shape: &Shape, learnt: Option<Learnt>, seed: u64) -> Measured {
    measured(&world::run(starting_from(shape, learnt, seed)))
}

/// What a drain on this store measures for the next one.
pub fn learnt(shape: &Shape, seed: u64) -> Option<Learnt> {
    world::run(scenario(shape, None, seed)).drains[0].report.as_ref().and_then(|report| report.learnt)
}

/// How many servers store their states at a time, DurableServer's default.
const STORED_AT_A_TIME: u32 = 50;

/// What a drain whose servers store their states first knows of the store when it starts, as
/// `DurableHandoff.Drain.Estimate` computes it.
pub fn stored_first(shape: &Shape, seed: u64) -> Option<Learnt> {
    let mut random = Random::new(seed);
    let mut store = Store::new(shape.store.clone(), world::START);
    let reaches = |asked: Micros, random: &mut Random| {
        let later = shape.noise.cpu_ms + random.unit() * shape.noise.jitter_ms;
        Reverse((asked + millis(later), asked))
    };
    // When each request reaches the store, and when its server was asked.
    let mut asked: BinaryHeap<_> =
        (0..STORED_AT_A_TIME.min(shape.servers)).map(|_| reaches(world::START, &mut random)).collect();
    let (mut shortest, mut last) = (f64::INFINITY, world::START);
    for server in 0..shape.servers {
        let Reverse((sent, began)) = asked.pop()?;
        let (answered, _) = store.write(server, sent, &mut random);
        shortest = shortest.min(micros(answered.since(began)));
        last = last.max(answered);
        asked.push(reaches(answered, &mut random));
    }
    let served = f64::from(shape.servers) * shortest / micros(last.since(world::START));
    let enough = served >= f64::from(STORED_AT_A_TIME) / 2.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most what was stored at a time")]
    let limit = if enough { STORED_AT_A_TIME } else { (served.round() as u32).max(1) };
    // Four requests, and half as much again for the first moves.
    Some(Learnt { limit, latency: millis(1.5 * 4.0 * shortest / 1_000.0), knee: false })
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run fit")]
fn micros(span: Micros) -> f64 {
    span.0 as f64
}

fn starting_from(shape: &Shape, learnt: Option<Learnt>, seed: u64) -> Scenario {
    let mut scenario = scenario(shape, None, seed);
    scenario.config.learnt = learnt;
    scenario
}

fn measured(run: &Outcome) -> Measured {
    let drain = micros(run.drains[0].took) / 1_000.0;
    Measured { p50: run.gap_ms(50), p99: run.gap_ms(99), drain }
}

fn scenario(shape: &Shape, fixed: Option<u32>, seed: u64) -> Scenario {
    let mut scenario = Named { nodes: 4, servers: shape.servers, deploy: Deploy::Single, ..NAMED[0] }.scenario(seed);
    scenario.servers.retain(|load| load.node == 0);
    (scenario.store, scenario.noise) = (shape.store.clone(), shape.noise);
    // Long enough for one attempt at a time on the slowest store.
    scenario.config = Config { timeout_ms: 600_000, ..scenario.config };
    if let Some(max_concurrency) = fixed {
        scenario.config = Config { max_concurrency, concurrency: Concurrency::Fixed, ..scenario.config };
    }
    scenario
}
