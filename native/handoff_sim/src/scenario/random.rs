//! A scenario from a seed, with any possible combination of nodes, load, store and faults.

use handoff_core::config::StickyLevel;
use handoff_core::limiter::Concurrency;
use handoff_core::{Config, Prefer, StickyPolicy};

use crate::cluster::{NodeSpec, ZONE};
use crate::random::Random;
use crate::scenario::deploy::{NEW_RELEASE, OLD_RELEASE, node};
use crate::scenario::{Do, Faults, Load, Noise, Scenario, Strategy, When};
use crate::store::{StoreShape, Weather};

/// The part of scenarios without faults. In these, every server that can be moved must be moved.
const CLEAN: f64 = 0.33;

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
    let clean = random.chance(CLEAN);
    let count = random.index(9) + 2;
    let mut nodes: Vec<NodeSpec> = (0..count).map(|index| some_node(index, clean, &mut random)).collect();
    let drains = if random.chance(0.4) { (random.index(3) + 2).min(count) } else { 1 };
    for source in nodes.iter_mut().take(drains) {
        source.not_ready.clear();
        source.suspended.clear();
    }
    let modules = random.between(1, 3);
    let stickies = stickies(&mut random);
    let servers = loads(count, drains, u32::try_from(modules).unwrap_or(1), stickies.len(), &mut random);
    Scenario {
        name: format!("random {seed}"),
        seed,
        store: store(clean, &mut random),
        noise: Noise::default(),
        faults: if clean { quiet(&mut random) } else { faults(&mut random) },
        script: script(count, drains, clean, &mut random),
        config: config(clean, &mut random),
        strategy: Strategy::Engine,
        coordinators: if drains > 1 { random.pick(&[0, 0, 1, 1, 2]) } else { 0 },
        modules: u32::try_from(modules).unwrap_or(1),
        nodes,
        servers,
        stickies,
        asks: random.chance(0.5),
        count_noise: if clean { 0.0 } else { random.pick(&[0.0, 0.0, 0.1, 0.5]) },
    }
}

pub(crate) fn some_node(index: usize, clean: bool, random: &mut Random) -> NodeSpec {
    let generation = random.pick(&[OLD_RELEASE, OLD_RELEASE, NEW_RELEASE]);
    let age_ms = i64::try_from(random.pick(&[5_000, 60_000, 600_000, 3_000_000, 86_400_000_u64])).unwrap_or(0);
    let limit = random.chance(0.4).then(|| u32::try_from(random.between(5, 80)).unwrap_or(5));
    let module_limit = random.chance(0.3).then(|| u32::try_from(random.between(1, 40)).unwrap_or(1));
    let stale = !clean && random.chance(0.08);
    let mut flaps = Vec::new();
    while !clean && random.chance(0.2) {
        let from = random.between(0, 5_000);
        flaps.push((from, from + random.between(20, 3_000)));
    }
    let mut suspended = Vec::new();
    if !clean && random.chance(0.15) {
        let from = random.between(0, 3_000);
        suspended.push((from, from + random.between(500, 20_000)));
    }
    NodeSpec {
        region: random.pick(&["a", "a", "b"]),
        skew_ms: if !clean && random.chance(0.3) {
            i64::try_from(random.between(0, 9_000)).unwrap_or(0) - 4_500
        } else {
            0
        },
        heartbeat_every_ms: if stale { 0 } else { random.pick(&[300, 1_000, 3_000, 10_000]) },
        // How long ago the heartbeats of a node stopped: some are stale, others not yet.
        heartbeat_delay_ms: if stale { random.between(30_000, 70_000) } else { random.pick(&[1, 20, 200, 900]) },
        library: random.chance(0.8),
        limit,
        module_limit,
        cpu: random.chance(0.3).then(|| (random.unit() * 100.0, 90.0)),
        zone: random.pick(&[None, Some("x"), Some("x"), Some("y")]),
        not_ready: flaps,
        suspended,
        ..node(index, generation, age_ms)
    }
}

pub(crate) fn stickies(random: &mut Random) -> Vec<Vec<StickyLevel>> {
    let mut all = vec![Vec::new()];
    let env =
        |value: Option<&str>, delay_ms| StickyLevel::Env { name: ZONE.into(), value: value.map(Into::into), delay_ms };
    while random.chance(0.5) && all.len() < 4 {
        let delay_ms = random.pick(&[0, 0, 5_000]);
        let value = random.pick(&[Some("x"), Some("y"), None]);
        all.push(match random.index(3) {
            0 => vec![env(value, delay_ms)],
            1 => vec![env(value, delay_ms), StickyLevel::Any { delay_ms: 0 }],
            _ => vec![env(value, delay_ms), env(Some("y"), 0), StickyLevel::Any { delay_ms: 0 }],
        });
    }
    all
}

fn loads(count: usize, drains: usize, modules: u32, stickies: usize, random: &mut Random) -> Vec<Load> {
    let mut loads = Vec::new();
    for node in 0..count {
        let most = if node < drains { 60 } else { 15 };
        for module in 0..modules {
            if random.chance(0.7) {
                let sticky = u32::try_from(random.index(stickies)).unwrap_or(0);
                let number = u32::try_from(random.between(0, most)).unwrap_or(0);
                let priority = random.pick(&[0, 0, 0, 5, -5]);
                loads.push(Load { node, count: number, module, sticky, priority });
            }
        }
    }
    loads
}

pub(crate) fn store(clean: bool, random: &mut Random) -> StoreShape {
    let mut weather = Vec::new();
    while !clean && random.chance(0.3) {
        let from = random.between(0, 4_000);
        let what = match random.index(4) {
            0 => Weather::Refusing(1.0),
            1 => Weather::Refusing(random.unit() * 0.3),
            2 => Weather::Silent,
            _ => Weather::Slow(2.0 + random.unit() * 50.0),
        };
        weather.push((from, from + random.between(50, 6_000), what));
    }
    StoreShape {
        slots: random.pick(&[None, Some(1), Some(4), Some(8), Some(32)]),
        latency_ms: if clean { random.pick(&[1.0, 5.0, 10.0]) } else { random.pick(&[1.0, 5.0, 10.0, 30.0, 100.0]) },
        sigma: random.pick(&[0.0, 0.2, 0.6]),
        weather,
        paced: None,
    }
}

pub(crate) fn quiet(random: &mut Random) -> Faults {
    Faults {
        registry_lag_ms: random.pick(&[0.0, 2.0, 20.0]),
        terminate_ms: random.pick(&[0.0, 1.0, 20.0]),
        ..Faults::default()
    }
}

pub(crate) fn faults(random: &mut Random) -> Faults {
    let mut rare = |often: f64| {
        if random.chance(0.35) { random.unit() * often } else { 0.0 }
    };
    Faults {
        overloaded: rare(0.2),
        hang: rare(0.1),
        hang_for_ever: rare(0.5),
        gone: rare(0.2),
        poisoned: rare(0.3),
        unsynced: rare(1.0),
        refusal: rare(0.5),
        elsewhere: rare(0.2),
        registry_lag_ms: rare(200.0),
        terminate_ms: rare(300.0),
        stop_fails: rare(0.2),
    }
}

fn script(count: usize, drains: usize, clean: bool, random: &mut Random) -> Vec<(When, Do)> {
    let mut script = Vec::new();
    let together = random.chance(0.6);
    for node in 0..drains {
        let when = match node.checked_sub(1) {
            Some(_) if together => When::At(random.between(0, 300)),
            Some(before) => When::After(before, random.between(0, 2_000)),
            None => When::At(0),
        };
        script.push((when, Do::Drain(node)));
    }
    while !clean && drains < count && random.chance(0.4) {
        let node = drains + random.index(count - drains);
        let at = random.between(0, 4_000);
        let back = at + random.between(5, 4_000);
        match random.index(3) {
            0 => script.extend([(When::At(at), Do::Kill(node)), (When::At(back), Do::Upgrade(node))]),
            1 => script.push((When::At(at), Do::Vanish(node))),
            _ => script.extend([(When::At(at), Do::Disconnect(node)), (When::At(back), Do::Reconnect(node))]),
        }
    }
    if !clean && random.chance(0.05) {
        script.push((When::At(random.between(0, 3_000)), Do::Cancel(0)));
    }
    if !clean && random.chance(0.1) {
        script.push((When::At(random.between(0, 3_000)), Do::Kill(0)));
    }
    script
}

pub(crate) fn config(clean: bool, random: &mut Random) -> Config {
    let ceiling = random.pick(&[1, 2, 5, 10, 50, 50]);
    Config {
        max_concurrency: ceiling,
        concurrency: if random.chance(0.75) { Concurrency::Adaptive } else { Concurrency::Fixed },
        max_concurrency_per_target: random.chance(0.25).then(|| random.pick(&[1, 2, 5])),
        timeout_ms: if clean { 600_000 } else { random.pick(&[500, 2_000, 10_000, 30_000, 30_000]) },
        attempt_timeout_ms: random.pick(&[200, 2_000, 15_000, 15_000]),
        max_attempts: random.pick(&[1, 3, 3, 8]),
        max_consecutive_failures: random.pick(&[3, 10, 10, 1_000]),
        max_failure_ratio: random.pick(&[0.5, 0.5, 1.0]),
        wait_for_target_ms: random.pick(&[0, 0, 2_000]),
        wait_for_lost_ms: random.pick(&[0, 2_000]),
        sticky: random.pick(&[StickyPolicy::Gated, StickyPolicy::Gated, StickyPolicy::AnyLevel, StickyPolicy::Ignore]),
        prefer: random.pick(&[Prefer::NewRelease, Prefer::NewRelease, Prefer::None]),
        ..Config::default()
    }
}
