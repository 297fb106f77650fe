//! The adaptive limiter on stores of many shapes, against the best fixed concurrency of the same simulation,
//! never against a clock.

use handoff_sim::scenario::Noise;
use handoff_sim::store::{StoreShape, Weather};
use handoff_sim::tables::stores::{Measured, Shape, drain};

/// Nine in ten of them have to stay below the bound.
const SEEDS: u64 = 30;

const CPU: Noise = Noise { cpu_ms: 0.3, jitter_ms: 0.0, stalls: (0.0, 0.0), cold: (0, 0.0), slow_stop: (0.0, 0.0) };
const JITTER: Noise = Noise { jitter_ms: 2.0, ..CPU };

/// One of the figures.
type Figure = fn(&Measured) -> f64;

const P50: Figure = |it| it.p50;
const P99: Figure = |it| it.p99;
const DRAIN: Figure = |it| it.drain;

fn shape(name: &'static str, slots: Option<u32>, noise: Noise) -> Shape {
    Shape { name, store: StoreShape::steady(slots, 10.0), noise }
}

/// Each figure is at most so many times that of the fixed limit; the message names the seed of one that is
/// not.
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
fn a_store_of_eight_slots_is_drained_with_the_gap_and_the_speed_of_the_best_fixed_limit() {
    let busy = Noise { cpu_ms: 0.6, jitter_ms: 2.0, stalls: (1.0, 10.0), cold: (8, 20.0), ..Noise::default() };
    for (name, noise) in [("8 slots", CPU), ("8 slots, jitter", JITTER), ("8 slots, busy machine", busy)] {
        assert_mostly_below(&shape(name, Some(8), noise), 8, &[("p99", P99, 1.6), ("drain", DRAIN, 1.2)]);
    }
}

#[test]
fn a_store_without_a_queue_costs_no_gap_while_the_limit_climbs() {
    let unlimited = shape("no queue, jitter", None, JITTER);
    assert_mostly_below(&unlimited, 50, &[("p50", P50, 1.05), ("drain", DRAIN, 1.6)]);
}

#[test]
fn fewer_slots_than_the_first_limit_are_found_by_looking_down() {
    for (name, slots) in [("2 slots", 2), ("4 slots", 4)] {
        assert_mostly_below(&shape(name, Some(slots), JITTER), 4, &[("p50", P50, 1.2), ("drain", DRAIN, 1.3)]);
    }
}

#[test]
fn servers_whose_own_stop_is_slow_are_not_taken_for_a_slow_store() {
    let slow_stops = Noise { slow_stop: (0.02, 800.0), ..CPU };
    assert_mostly_below(&shape("slow stops", None, slow_stops), 50, &[("drain", DRAIN, 1.6)]);
}

#[test]
fn a_store_that_refuses_for_a_while_is_used_fully_again_afterwards() {
    let weather = vec![(500, 800, Weather::Refusing(0.8))];
    let refusing = Shape {
        name: "refusing for a while",
        store: StoreShape { weather, ..StoreShape::steady(Some(8), 10.0) },
        noise: CPU,
    };
    assert_mostly_below(&refusing, 8, &[("drain", DRAIN, 2.0)]);
}
