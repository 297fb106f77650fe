//! The adaptive limiter on stores of many kinds, compared with the best fixed limit in the same simulation
//! and never with a clock.

use handoff_core::limiter::Learnt;
use handoff_core::time::Micros;
use handoff_sim::scenario::Noise;
use handoff_sim::store::{Paced, StoreShape, Weather};
use handoff_sim::tables::stores::{Measured, SERVERS, Shape, drain, drain_from, learnt, stored_first};

/// The number of seeds. Nine in ten must stay below the bound.
const SEEDS: u64 = 30;
/// The number of seeds for figures that depend on which attempts a stall of the machine delays.
const MANY_SEEDS: u64 = 400;

const CPU: Noise =
    Noise { cpu_ms: 0.3, busy_ms: 0.0, jitter_ms: 0.0, stalls: (0.0, 0.0), cold: (0, 0.0), slow_stop: (0.0, 0.0) };
const JITTER: Noise = Noise { jitter_ms: 2.0, ..CPU };
/// The first attempts load code and open connections.
const COLD: Noise = Noise { cold: (8, 20.0), ..JITTER };

/// One of the figures.
type Figure = fn(&Measured) -> f64;

const P50: Figure = |it| it.p50;
const P99: Figure = |it| it.p99;
const DRAIN: Figure = |it| it.drain;

fn shape(name: &'static str, slots: Option<u32>, noise: Noise) -> Shape {
    Shape { name, store: StoreShape::steady(slots, 10.0), noise, servers: SERVERS }
}

/// Asserts that each figure is at most the given multiple of that of the fixed limit. The message has the
/// seed of a violation.
fn assert_mostly_below(shape: &Shape, fixed: u32, bounds: &[(&str, Figure, f64)]) {
    let runs: Vec<_> =
        (0..SEEDS).map(|seed| (seed, drain(shape, None, seed), drain(shape, Some(fixed), seed))).collect();
    for (figure, of, bound) in bounds {
        let mut ratios: Vec<(f64, u64)> = runs.iter().map(|(seed, ours, best)| (of(ours) / of(best), *seed)).collect();
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, seed) = ratios[ratios.len() * 9 / 10];
        println!("{}: {figure} {ratio:.2} times fixed {fixed}", shape.name);
        assert!(
            ratio <= *bound,
            "{}: {figure} {ratio:.2} times fixed {fixed} at seed {seed}, at most {bound}",
            shape.name
        );
    }
}

#[test]
fn a_store_of_eight_slots_is_drained_with_the_gap_and_speed_of_the_best_fixed_limit() {
    let busy = Noise { cpu_ms: 0.6, jitter_ms: 2.0, stalls: (1.0, 10.0), cold: (8, 20.0), ..Noise::default() };
    for (name, noise) in [("8 slots", CPU), ("8 slots, jitter", JITTER), ("8 slots, busy machine", busy)] {
        assert_mostly_below(&shape(name, Some(8), noise), 8, &[("p99", P99, 1.4), ("drain", DRAIN, 1.05)]);
    }
}

#[test]
fn a_store_without_a_queue_costs_no_gap_while_the_limit_climbs() {
    let unlimited = shape("no queue, jitter", None, JITTER);
    assert_mostly_below(&unlimited, 50, &[("p50", P50, 1.05), ("drain", DRAIN, 1.6)]);
}

/// All keys were written within the last 300 ms before the drain, and this part of the servers writes again
/// just before the move.
fn paced(busy: f64, servers: u32) -> Shape {
    let store = StoreShape { paced: Some(Paced { stored_ms: 300, busy }), ..StoreShape::steady(None, 10.0) };
    Shape { name: "a write a second and key", store, noise: CPU, servers }
}

#[test]
fn pauses_for_a_key_do_not_count_as_a_queue() {
    let looked = |limit| Some(Learnt { limit, latency: Micros::from_millis(63), knee: false });
    // Servers, the part of them that is busy, and the largest allowed multiples of the best time: of a first
    // drain that knows nothing, of one that has measured its store, and of a second drain.
    for (servers, busy, first, after_look, second) in [
        (200, 0.0, 1.75, 1.5, 1.05),
        (200, 0.3, 1.75, 1.5, 1.2),
        (200, 1.0, 1.8, 1.55, 1.05),
        (500, 0.0, 1.35, 1.25, 1.05),
        (500, 0.3, 1.35, 1.25, 1.05),
    ] {
        let shape = paced(busy, servers);
        let took = |learnt: &dyn Fn(u64) -> Option<Learnt>| {
            ratios(SEEDS, |seed| drain_from(&shape, learnt(seed), seed), &shape, 50).1
        };
        for (starts, bound, took) in [
            ("unknown", first, took(&|_| None)),
            ("looked, 8", after_look, took(&|_| looked(8))),
            ("looked, 48", after_look, took(&|_| looked(48))),
            ("learnt", second, took(&|seed| learnt(&shape, seed + 100))),
        ] {
            println!("{servers} servers, {busy} busy, {starts}: {took:.2} times fixed 50");
            assert!(took <= bound, "{servers} servers, {busy} busy, {starts}: {took:.2}, at most {bound}");
        }
    }
}

#[test]
fn a_queue_of_attempts_that_take_seconds_is_found() {
    // Slots, latency, and the largest allowed multiples of the p99 of the best fixed limit in the first and in
    // the second drain. On stores of five requests a second the target's part of one of eight moves takes
    // longer than its caller waits.
    for (slots, latency_ms, first, second) in [
        (1, 50.0, 4.0, 2.0),
        (1, 200.0, 4.0, 2.0),
        (2, 200.0, 2.25, 1.75),
        (2, 400.0, 2.25, 1.75),
        (4, 400.0, 2.5, 1.5),
        (4, 600.0, 2.25, 1.5),
        (4, 800.0, 2.5, 2.5),
        (8, 300.0, 1.5, 1.5),
        (16, 300.0, 1.8, 1.8),
    ] {
        let store = StoreShape::steady(Some(slots), latency_ms);
        let shape = Shape { name: "", store, noise: JITTER, servers: SERVERS };
        let runs = [
            ("first", first, ratios(SEEDS, |seed| drain(&shape, None, seed), &shape, slots)),
            (
                "second",
                second,
                ratios(SEEDS, |seed| drain_from(&shape, learnt(&shape, seed + 100), seed), &shape, slots),
            ),
        ];
        for (which, bound, (p99, took)) in runs {
            let text = format!("{which} drain, {slots} slots, {latency_ms} ms: p99 {p99:.2}, time {took:.2}");
            println!("{text} times fixed {slots}");
            assert!(p99 <= bound && took <= 1.1, "{text}, at most {bound} and 1.1");
        }
    }
}

#[test]
fn a_store_with_fewer_slots_than_the_first_limit_is_found_by_lower_limits() {
    for (name, slots) in [("2 slots", 2), ("4 slots", 4)] {
        assert_mostly_below(&shape(name, Some(slots), JITTER), 4, &[("p50", P50, 1.2), ("drain", DRAIN, 1.3)]);
    }
}

#[test]
fn a_first_drain_does_not_overload_a_store_of_one_or_two_slots() {
    for (slots, noise, servers, p99) in
        [(1, JITTER, SERVERS, 3.25), (2, CPU, SERVERS, 2.0), (2, JITTER, SERVERS, 2.0), (2, JITTER, 200, 2.0)]
    {
        let small = Shape { servers, ..shape("few slots", Some(slots), noise) };
        assert_mostly_below(&small, slots, &[("p99", P99, p99), ("drain", DRAIN, 1.1)]);
    }
}

#[test]
fn servers_whose_own_stop_is_slow_do_not_count_as_a_slow_store() {
    let slow_stops = Noise { slow_stop: (0.02, 800.0), ..CPU };
    assert_mostly_below(&shape("slow stops", None, slow_stops), 50, &[("drain", DRAIN, 1.4)]);
    let many = shape("many slow stops", Some(8), Noise { slow_stop: (0.3, 1_500.0), ..CPU });
    assert_mostly_below(&many, 50, &[("p99", P99, 1.1), ("drain", DRAIN, 2.0)]);
}

/// Machines that also do other work.
const BUSY: Noise = Noise { cpu_ms: 0.6, jitter_ms: 2.0, stalls: (1.0, 10.0), cold: (8, 20.0), ..CPU };

#[test]
fn the_second_drain_starts_at_the_limit_of_the_first() {
    // Slots, the best fixed limit, and the largest allowed multiples of its p99 and time.
    for (slots, best, noise, p99, time) in [
        (None, 50, CPU, 1.05, 1.05),
        (None, 50, JITTER, 1.05, 1.05),
        (None, 50, BUSY, 1.05, 1.1),
        (Some(8), 8, CPU, 1.2, 1.05),
        (Some(8), 8, JITTER, 1.2, 1.05),
        (Some(8), 8, BUSY, 1.5, 1.05),
        (Some(2), 2, CPU, 1.5, 1.05),
        (Some(2), 2, JITTER, 1.5, 1.05),
        (Some(1), 1, JITTER, 2.0, 1.05),
    ] {
        let shape = shape("", slots, noise);
        let seeds = if noise == BUSY { MANY_SEEDS } else { SEEDS };
        let second = ratios(seeds, |seed| drain_from(&shape, learnt(&shape, seed + 100), seed), &shape, best);
        println!("{slots:?}: p99 and time of the second drain {second:.2?} times fixed {best}");
        assert!(second.0 <= p99 && second.1 <= time, "{slots:?}, {noise:?}: {second:?}, at most {p99} and {time}");
    }
}

#[test]
fn a_first_drain_that_has_probed_its_store_starts_close_to_the_knee() {
    // Slots, the result of the probe, the best fixed limit, and the largest multiples of its p99 and time.
    for (slots, looked, best, noise, p99, time) in [
        (None, 48, 50, JITTER, 1.05, 1.1),
        (Some(8), 8, 8, JITTER, 1.25, 1.05),
        (Some(8), 5, 8, JITTER, 1.3, 1.1),
        (Some(2), 2, 2, JITTER, 1.5, 1.1),
        (Some(1), 1, 1, JITTER, 2.0, 1.1),
        (None, 48, 50, COLD, 1.05, 1.1),
        (Some(8), 8, 8, COLD, 1.25, 1.05),
        (Some(8), 9, 8, COLD, 1.25, 1.05),
        (Some(8), 5, 8, COLD, 1.3, 1.1),
        (Some(2), 2, 2, COLD, 1.75, 1.1),
        (Some(1), 1, 1, COLD, 2.0, 1.1),
    ] {
        let shape = shape("", slots, noise);
        let learnt = Learnt { limit: looked, latency: Micros::from_millis(63), knee: false };
        let first = ratios(SEEDS, |seed| drain_from(&shape, Some(learnt), seed), &shape, best);
        println!("{slots:?}, looked {looked}, {:?}: p99 and time {first:.2?} times fixed {best}", noise.cold);
        assert!(
            first.0 <= p99 && first.1 <= time,
            "{slots:?}, {looked}, {:?}: {first:?}, at most {p99} and {time}",
            noise.cold
        );
    }
}

#[test]
fn a_first_drain_whose_servers_stored_first_knows_its_store() {
    // Slots, latency, the best fixed limit, and the largest multiples of its p99 and time.
    for (slots, latency_ms, best, p99, time) in [
        (None, 10.0, 50, 1.1, 1.1),
        (None, 300.0, 50, 1.1, 1.1),
        (Some(8), 10.0, 8, 1.3, 1.1),
        (Some(2), 10.0, 2, 2.0, 1.1),
        (Some(1), 10.0, 1, 2.0, 1.1),
        (Some(1), 50.0, 1, 2.0, 1.1),
        (Some(1), 200.0, 1, 2.0, 1.1),
        (Some(2), 400.0, 2, 2.0, 1.1),
        (Some(4), 800.0, 4, 2.5, 1.1),
        (Some(16), 600.0, 16, 2.0, 1.1),
    ] {
        let shape = Shape { store: StoreShape::steady(slots, latency_ms), ..shape("", slots, JITTER) };
        let first = ratios(SEEDS, |seed| drain_from(&shape, stored_first(&shape, seed + 100), seed), &shape, best);
        println!("{slots:?}, {latency_ms} ms, stored first: p99 and time {first:.2?} times fixed {best}");
        assert!(first.0 <= p99 && first.1 <= time, "{slots:?}, {latency_ms} ms: {first:?}, at most {p99} and {time}");
    }
}

/// Two other processes only compute.
const TWO_LOOPS: Noise = Noise { cpu_ms: 0.25, busy_ms: 3.0, jitter_ms: 0.5, ..CPU };
/// Far more other work than the processors can do: several times a second all attempts in flight stall.
const OVERLOADED: Noise = Noise { stalls: (6.0, 30.0), ..TWO_LOOPS };

#[test]
fn a_wait_for_busy_processors_does_not_count_as_a_queue_in_the_store() {
    // Slots, latency, the best fixed limit, and the largest multiples of its time in the first and in the
    // second drain.
    for (slots, latency_ms, best, noise, first, second) in [
        (None, 0.1, 50, TWO_LOOPS, 1.2, 1.2),
        (None, 10.0, 50, TWO_LOOPS, 1.4, 1.05),
        (Some(8), 10.0, 8, TWO_LOOPS, 1.05, 1.05),
        (None, 0.1, 50, OVERLOADED, 1.7, 1.7),
        (None, 10.0, 50, OVERLOADED, 2.5, 1.6),
        (Some(8), 10.0, 8, OVERLOADED, 1.3, 1.3),
        (Some(2), 10.0, 2, OVERLOADED, 1.2, 1.2),
    ] {
        let shape = Shape { name: "", store: StoreShape::steady(slots, latency_ms), noise, servers: SERVERS };
        let seeds = if noise == OVERLOADED { MANY_SEEDS } else { SEEDS };
        let (_, took) = ratios(seeds, |seed| drain(&shape, None, seed), &shape, best);
        let (_, again) = ratios(seeds, |seed| drain_from(&shape, learnt(&shape, seed + 100), seed), &shape, best);
        println!("{slots:?}, {latency_ms} ms, {noise:?}: {took:.2}, then {again:.2} times fixed {best}");
        assert!(
            took <= first && again <= second,
            "{slots:?}, {latency_ms} ms, {noise:?}: {took:.2} and {again:.2} times fixed {best}, at most {first} and {second}"
        );
    }
}

#[test]
fn an_outdated_measurement_is_corrected_within_the_drain() {
    let learnt = |limit, ms, knee| Learnt { limit, latency: Micros::from_millis(ms), knee };
    // A store that now has fewer slots, or more, or is faster, and the largest multiple of the time of the
    // best fixed limit.
    for (slots, best, wrong, time) in [
        (Some(1), 1, learnt(50, 45, false), 1.1),
        (Some(2), 2, learnt(50, 45, false), 1.1),
        (Some(8), 8, learnt(50, 45, false), 1.1),
        (Some(8), 8, learnt(2, 42, true), 1.3),
        (None, 50, learnt(8, 45, true), 2.0),
        (None, 50, learnt(2, 42, true), 4.0),
        // It was slower then. A drain that knows nothing takes up to 1.6 times as long.
        (None, 50, learnt(2, 400, true), 1.6),
        (None, 50, learnt(8, 400, true), 1.6),
        (Some(8), 8, learnt(2, 400, true), 1.1),
    ] {
        let shape = shape("", slots, JITTER);
        let (_, took) = ratios(SEEDS, |seed| drain_from(&shape, Some(wrong), seed), &shape, best);
        assert!(took <= time, "{slots:?}, started from {wrong:?}: {took:.2} times fixed {best}, at most {time}");
    }
}

/// The 90th percentile of the ratios of p99 and time to those of the fixed limit.
fn ratios(seeds: u64, of: impl Fn(u64) -> Measured, shape: &Shape, fixed: u32) -> (f64, f64) {
    let runs: Vec<_> = (0..seeds).map(|seed| (of(seed), drain(shape, Some(fixed), seed))).collect();
    let ninth = |figure: Figure| {
        let mut ratios: Vec<f64> = runs.iter().map(|(ours, best)| figure(ours) / figure(best)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() * 9 / 10]
    };
    (ninth(P99), ninth(DRAIN))
}

#[test]
fn a_store_that_refuses_for_a_while_is_fully_used_again_afterwards() {
    let weather = vec![(500, 800, Weather::Refusing(0.8))];
    let refusing = Shape {
        name: "refusing for a while",
        store: StoreShape { weather, ..StoreShape::steady(Some(8), 10.0) },
        noise: CPU,
        servers: SERVERS,
    };
    assert_mostly_below(&refusing, 8, &[("drain", DRAIN, 2.0)]);
}
