//! Prints how the adaptive limiter fares against fixed limits on simulated stores:
//! `cargo run --release --example limiter_table -p handoff_core [SEEDS]`.
//!
//! For each store: gap p50 and p99 and the time of a drain of 500 servers in milliseconds, medians over the seeds, for the
//! best fixed limit (lowest p99 among those at most a fifth slower than the fastest), for 50 in flight, and for the
//! limiter; then the limiter's ratios to the best.

#[path = "../tests/support/sim/mod.rs"]
mod sim;

use handoff_core::limiter::Concurrency;
use sim::{Outcome, Shape, UNLIMITED, drain};

const SERVERS: usize = 500;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Gap p50, gap p99 and total time: medians over the seeds.
fn medians(outcomes: &[Outcome]) -> [f64; 3] {
    [|o: &Outcome| o.p50, |o: &Outcome| o.p99, |o: &Outcome| o.total]
        .map(|column| median(outcomes.iter().map(column).collect()))
}

fn shapes() -> Vec<Shape> {
    let mut shapes: Vec<Shape> =
        [1, 2, 4, 8, 16, 32, UNLIMITED].iter().map(|slots| Shape::new(*slots, 10.0).jitter(2.0)).collect();
    for slots in [8, UNLIMITED] {
        shapes.push(Shape::new(slots, 10.0).cpu(1.0).jitter(3.0).stalls(1.5, 15.0));
        shapes.push(Shape::new(slots, 1.0).jitter(3.0));
        shapes.push(Shape::new(slots, 100.0).jitter(3.0));
        shapes.push(Shape::new(slots, 10.0).sigma(0.5));
        shapes.push(Shape::new(slots, 10.0).tail(0.02, 20.0));
    }
    shapes.push(Shape::new(32, 10.0).jitter(3.0).slots_from(400.0, 4));
    shapes.push(Shape::new(4, 10.0).jitter(3.0).slots_from(2_000.0, 32));
    shapes
}

fn main() {
    let seeds: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(11);
    println!("{:44} {:>26} {:>23} {:>23}   ratios to the best", "", "best fixed", "50 in flight", "adaptive");
    for shape in shapes() {
        let run = |mode, ceiling| -> [f64; 3] {
            medians(&(0..seeds).map(|seed| drain(&shape, mode, ceiling, SERVERS, seed)).collect::<Vec<_>>())
        };
        let fixed = [4, 8, 16, 32, 50].map(|limit| (limit, run(Concurrency::Fixed, limit)));
        let fastest = fixed.iter().map(|(_, [_, _, total])| *total).fold(f64::MAX, f64::min);
        let quick = fixed.iter().filter(|(_, [_, _, total])| *total <= 1.2 * fastest);
        let Some((limit, best)) = quick.min_by(|(_, a), (_, b)| a[1].total_cmp(&b[1])) else { continue };
        let adaptive = run(Concurrency::Adaptive, 50);
        let show = |[p50, p99, total]: [f64; 3]| format!("{p50:7.1}{p99:8.1}{total:8.0}");
        let ratios = [0, 1, 2].map(|column| adaptive[column] / best[column]);
        println!(
            "{:44} {limit:2}:{} {} {}   p50 {:.2}  p99 {:.2}  time {:.2}",
            shape.name,
            show(*best),
            show(fixed[4].1),
            show(adaptive),
            ratios[0],
            ratios[1],
            ratios[2]
        );
    }
}
