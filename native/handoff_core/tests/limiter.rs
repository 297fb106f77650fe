//! The limiter by itself. `handoff_sim` tests it on simulated stores.

use handoff_core::limiter::{Concurrency, Learnt, Limiter, Permit, Verdict};
use handoff_core::time::Micros;
use proptest::prelude::*;

#[test]
fn a_limit_that_is_not_in_use_never_rises() {
    let mut limiter = Limiter::new(Concurrency::Adaptive, 50);
    let first = limiter.limit();
    for round in 0..500 {
        let start = Micros::from_millis(round * 40);
        let permit = limiter.on_start(start);
        limiter.on_finish(start + Micros::from_millis(40), permit, Micros::from_millis(40), Verdict::Served);
        assert!(limiter.limit() <= first, "one at a time, and the limit is {}", limiter.limit());
    }
}

#[test]
fn a_few_more_attempts_start_when_all_hang() {
    let mut limiter = Limiter::new(Concurrency::Adaptive, 50);
    while limiter.available() > 0 {
        limiter.on_start(Micros::ZERO);
    }
    let before = limiter.in_flight();
    let tick = limiter.next_tick().expect("it is full and nothing ends");
    limiter.on_tick(tick);
    assert_eq!(limiter.available(), 1);
    limiter.on_start(tick);
    assert_eq!(limiter.in_flight(), before + 1);
}

#[test]
fn a_fixed_limit_does_not_change_and_still_measures_the_latency() {
    let mut limiter = Limiter::new(Concurrency::Fixed, 4);
    let permit = limiter.on_start(Micros::ZERO);
    limiter.on_finish(Micros::from_millis(30), permit, Micros::from_millis(30), Verdict::Overload);
    let permit = limiter.on_start(Micros::from_millis(30));
    limiter.on_finish(Micros::from_millis(70), permit, Micros::from_millis(40), Verdict::Served);
    assert_eq!((limiter.limit(), limiter.typical_latency()), (4, Some(Micros::from_millis(40))));
}

#[test]
fn the_rest_of_a_move_does_not_count_as_a_short_attempt() {
    let mut limiter = Limiter::new(Concurrency::Adaptive, 50);
    let mut now = Micros::ZERO;
    for verdict in [Verdict::Served, Verdict::ServedAfterStop] {
        for _ in 0..100 {
            let latency = Micros::from_millis(if verdict == Verdict::Served { 800 } else { 1 });
            let permit = limiter.on_start(now);
            now = now + latency;
            limiter.on_finish(now, permit, latency, verdict);
        }
        assert_eq!(limiter.typical_latency(), Some(Micros::from_millis(800)));
    }
}

/// Runs generations of attempts. `latency`: of each attempt of a generation of this size.
fn run(limiter: &mut Limiter, now: &mut Micros, generations: u32, latency: impl Fn(u64) -> Micros) {
    for _ in 0..generations {
        let permits: Vec<Permit> = (0..limiter.available()).map(|_| limiter.on_start(*now)).collect();
        let latency = latency(permits.len() as u64);
        *now = *now + latency;
        permits.into_iter().for_each(|permit| limiter.on_finish(*now, permit, latency, Verdict::Served));
    }
}

/// The limit after generations of attempts, of which each takes `each` for every attempt in flight, as on busy
/// processors.
fn limit_of_busy_processors(mut limiter: Limiter, each: Micros) -> u32 {
    let mut now = Micros::ZERO;
    run(&mut limiter, &mut now, 40, |attempts| each.times(attempts));
    limiter.limit()
}

#[test]
fn a_drain_that_joins_raises_the_limit_that_the_ceiling_of_another_one_held() {
    let latency = Micros::from_millis(100);
    let learnt = |latency| Some(Learnt { limit: 40, latency, knee: false });
    // What the drain knows, and the limit when it joins.
    for (knows, at_once) in [(None, 10), (learnt(latency), 40), (learnt(Micros::from_millis(50)), 10)] {
        let (mut limiter, mut now) = (Limiter::new(Concurrency::Adaptive, 10), Micros::ZERO);
        run(&mut limiter, &mut now, 40, |_attempts| latency);
        assert_eq!((limiter.limit(), limiter.learnt().expect("measured").limit), (10, 10));
        limiter.join(Concurrency::Adaptive, 50, knows, false);
        limiter.set_room(60);
        assert_eq!(limiter.limit(), at_once, "{knows:?}");
        run(&mut limiter, &mut now, 40, |_attempts| latency);
        assert_eq!(limiter.limit(), 50, "{knows:?}");
    }
}

#[test]
fn a_drain_that_joins_does_not_replace_a_limit_that_was_measured() {
    let (mut limiter, mut now) = (Limiter::new(Concurrency::Adaptive, 50), Micros::ZERO);
    run(&mut limiter, &mut now, 40, |attempts| Micros::from_millis(20).times(attempts));
    let measured = limiter.limit();
    assert!(measured <= 2);
    let learnt = Learnt { limit: 40, latency: Micros::from_millis(100), knee: false };
    limiter.join(Concurrency::Adaptive, 80, Some(learnt), false);
    assert_eq!(limiter.limit(), measured);
}

#[test]
fn what_a_drain_knows_is_checked_also_after_a_rest() {
    let (mut limiter, mut now) = (Limiter::new(Concurrency::Adaptive, 10), Micros::ZERO);
    run(&mut limiter, &mut now, 40, |_attempts| Micros::from_millis(100));
    let learnt = Learnt { limit: 50, latency: Micros::from_millis(100), knee: true };
    limiter.join(Concurrency::Adaptive, 50, Some(learnt), true);
    limiter.set_room(50);
    now = now + Micros::from_millis(30_000);
    run(&mut limiter, &mut now, 5, |attempts| Micros::from_millis(10).times(attempts.max(10)));
    assert!(limiter.limit() < 20, "the store serves ten at a time: {}", limiter.limit());
}

#[test]
fn attempts_may_wait_for_one_another_until_they_take_32_ms() {
    for (each, limits) in [(600, 50..=50), (900, 33..=39), (2_000, 14..=17), (20_000, 1..=2)] {
        let each = Micros(each);
        let unknown = Limiter::new(Concurrency::Adaptive, 50);
        let learnt = Learnt { limit: 10, latency: each.times(10), knee: true };
        let known = Limiter::starting_from(Concurrency::Adaptive, 50, Some(learnt));
        for limiter in [unknown, known] {
            let limit = limit_of_busy_processors(limiter.clone(), each);
            assert!(limits.contains(&limit), "{each:?} each: limit {limit}, not in {limits:?}, from {limiter:?}");
        }
    }
}

#[test]
fn a_store_that_slows_down_faster_than_it_is_loaded_is_approached_in_small_steps() {
    // Each of ten attempts takes 10 ms, each of 20 takes 40 ms, each of 33 would take 109 ms.
    let mut limiter = Limiter::new(Concurrency::Adaptive, 50);
    let (mut now, mut highest) = (Micros::ZERO, 0);
    for _ in 0..40 {
        run(&mut limiter, &mut now, 1, |attempts| Micros(100).times(attempts * attempts));
        highest = highest.max(limiter.limit());
    }
    assert!(highest <= 20, "the limit rose to {highest}");
}

/// One step of a random sequence.
#[derive(Debug, Clone)]
enum Step {
    Start,
    Finish(usize, u64, Verdict),
    Tick,
    Wait(u64),
    Join(u32, Option<Learnt>),
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        6 => Just(Verdict::Served),
        1 => Just(Verdict::ServedAfterStop),
        1 => Just(Verdict::Overload),
        1 => Just(Verdict::Neutral),
    ];
    prop_oneof![
        5 => Just(Step::Start),
        5 => (any::<usize>(), 0..500_u64, verdict).prop_map(|(index, ms, verdict)| Step::Finish(index, ms, verdict)),
        1 => Just(Step::Tick),
        2 => (0..2_000_u64).prop_map(Step::Wait),
        1 => (1..80_u32, prop::option::of(learnt())).prop_map(|(ceiling, learnt)| Step::Join(ceiling, learnt)),
    ]
}

fn learnt() -> impl Strategy<Value = Learnt> {
    (1..80_u32, 1..2_000_u64, any::<bool>()).prop_map(|(limit, ms, knee)| Learnt {
        limit,
        latency: Micros::from_millis(ms),
        knee,
    })
}

/// Runs the steps. Returns the limit after each step.
fn live(mode: Concurrency, mut ceiling: u32, steps: &[Step]) -> Vec<u32> {
    let mut limiter = Limiter::new(mode, ceiling);
    // The ceilings of all drains together.
    let mut room = ceiling;
    let mut now = Micros::from_millis(5);
    let mut permits: Vec<Permit> = Vec::new();
    let mut limits = Vec::new();
    for step in steps {
        match step {
            Step::Start if limiter.available() > 0 => permits.push(limiter.on_start(now)),
            Step::Finish(index, ms, verdict) if !permits.is_empty() => {
                let permit = permits.swap_remove(index % permits.len());
                limiter.on_finish(now, permit, Micros::from_millis(*ms), *verdict);
            }
            Step::Tick => {
                if let Some(at) = limiter.next_tick() {
                    now = now.max(at);
                    limiter.on_tick(now);
                }
            }
            Step::Wait(ms) => now = now + Micros::from_millis(*ms),
            Step::Join(other, learnt) => {
                limiter.join(mode, *other, *learnt, false);
                (ceiling, room) = (ceiling.max(*other), room + other);
                limiter.set_room(room);
            }
            Step::Start | Step::Finish(..) => {}
        }
        let in_flight = u32::try_from(permits.len()).expect("few");
        assert_eq!(limiter.in_flight(), in_flight);
        assert!(in_flight <= room, "{in_flight} in flight, the ceilings together are {room}");
        assert!((1..=ceiling).contains(&limiter.limit()), "limit {}, ceiling {ceiling}", limiter.limit());
        limits.push(limiter.limit());
    }
    limits
}

proptest! {
    #[test]
    fn whatever_happens_the_ceiling_holds_and_the_same_calls_give_the_same_limits(
        ceiling in 1..80_u32,
        fixed in any::<bool>(),
        steps in prop::collection::vec(step(), 0..600),
    ) {
        let mode = if fixed { Concurrency::Fixed } else { Concurrency::Adaptive };
        prop_assert_eq!(live(mode, ceiling, &steps), live(mode, ceiling, &steps));
    }
}
