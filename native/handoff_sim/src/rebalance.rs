//! Scenarios of rebalances, from a seed: after a scale-out, a scale-in or an in-place deploy, with exact,
//! wrong or old numbers and all kinds of faults; and the checks of their results.

mod rounds;

use handoff_core::{Config, Prefer, StickyPolicy};

use crate::cluster::NodeSpec;
use crate::random::Random;
use crate::scenario::deploy::{Deploy, OLD_RELEASE, node};
use crate::scenario::{Do, Load, Noise, Scenario, Strategy, When, random};

pub use rounds::broken;

/// The time between two rounds: longer than any rebalance of these scenarios.
const ROUND_MS: u64 = 60_000;
const ROUNDS: u64 = 3;

/// The accuracy of a rebalance's numbers, and the events during it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All nodes begin together and have exact numbers.
    Exact,
    /// All nodes begin together, and their numbers are within two percent.
    Noisy,
    /// Numbers come from heartbeats only.
    Stale,
    /// The nodes begin one after the other, while servers are in flight.
    Staggered,
    /// A deploy as in [`Deploy::InPlace`]. In this and the next two kinds the nodes begin together, a minute
    /// later.
    InPlace,
    /// A deploy as in [`Deploy::ScaleIn`].
    ScaleIn,
    /// Nodes start.
    ScaleOut,
    Trouble,
}

impl Kind {
    /// The kind of scenario of a seed.
    pub fn of(seed: u64) -> Kind {
        const KINDS: [Kind; 9] = [
            Kind::Exact,
            Kind::Noisy,
            Kind::Stale,
            Kind::Staggered,
            Kind::InPlace,
            Kind::ScaleIn,
            Kind::ScaleOut,
            Kind::Trouble,
            Kind::Trouble,
        ];
        KINDS[usize::try_from(seed).unwrap_or(0) % KINDS.len()]
    }

    /// The numbers of servers are within this part of the true ones.
    fn count_noise(self, random: &mut Random) -> f64 {
        match self {
            Kind::Noisy => random.pick(&[0.005, 0.01, 0.02]),
            Kind::InPlace | Kind::ScaleIn | Kind::ScaleOut => random.pick(&[0.0, 0.0, 0.01]),
            Kind::Trouble => random.pick(&[0.0, 0.1, 0.5]),
            Kind::Exact | Kind::Stale | Kind::Staggered => 0.0,
        }
    }
}

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x5851_F42D);
    let kind = Kind::of(seed);
    let trouble = kind == Kind::Trouble;
    let count = random.index(11) + 2;
    // The nodes that leave, or that join.
    let changes = random.index(count - 1).min(count / 2) + 1;
    let nodes = nodes(kind, count, changes, &mut random);
    let stickies = if trouble { random::stickies(&mut random) } else { vec![Vec::new()] };
    let modules = u32::try_from(random.between(1, 3)).unwrap_or(1);
    Scenario {
        name: format!("rebalance {seed}, {kind:?}"),
        seed,
        servers: loads(&nodes, modules, stickies.len(), &mut random),
        store: random::store(!trouble, &mut random),
        noise: Noise::default(),
        faults: if trouble { random::faults(&mut random) } else { random::quiet(&mut random) },
        script: script(kind, count, changes, &mut random),
        config: Config {
            tolerance: random.pick(&[0.05, 0.05, 0.1]),
            min_servers: random.pick(&[1, 5, 20]),
            max_per_second: random.pick(&[None, None, Some(50)]),
            sticky: StickyPolicy::Gated,
            prefer: random.pick(&[Prefer::NewRelease, Prefer::None]),
            wait_for_target_ms: 0,
            wait_for_lost_ms: 0,
            timeout_ms: if trouble { random.pick(&[2_000, 30_000]) } else { 50_000 },
            ..random::config(!trouble, &mut random)
        },
        strategy: Strategy::Engine,
        coordinators: random.pick(&[0, 0, 1, 1, 2]),
        asks: match kind {
            Kind::Stale => false,
            Kind::Exact | Kind::Noisy | Kind::Staggered => true,
            Kind::InPlace | Kind::ScaleIn | Kind::ScaleOut | Kind::Trouble => random.chance(0.5),
        },
        count_noise: kind.count_noise(&mut random),
        modules,
        stickies,
        nodes,
    }
}

fn nodes(kind: Kind, count: usize, changes: usize, random: &mut Random) -> Vec<NodeSpec> {
    let limited = random.chance(0.3);
    (0..count)
        .map(|index| {
            if kind == Kind::Trouble {
                let releases = if random.chance(0.9) { OLD_RELEASE } else { "3" };
                return NodeSpec { generation: releases, ..random::some_node(index, false, random) };
            }
            let joins = kind == Kind::ScaleOut && index >= count - changes;
            NodeSpec {
                heartbeat_every_ms: random.pick(&[1_000, 10_000]),
                heartbeat_delay_ms: random.pick(&[1, 20, 900]),
                limit: limited.then(|| u32::try_from(random.between(100, 400)).unwrap_or(100)),
                ..node(index, OLD_RELEASE, if joins { -1 } else { random.pick(&[60_000, 86_400_000]) })
            }
        })
        .collect()
}

/// The servers of each node: after a scale-out some nodes are empty, after an in-place deploy the last one
/// is, and after a scale-in the nodes differ.
fn loads(nodes: &[NodeSpec], modules: u32, stickies: usize, random: &mut Random) -> Vec<Load> {
    let even = random.between(10, 150);
    let shape = random.index(3);
    let empty = nodes.len() - 1 - random.index(nodes.len() - 1).min(nodes.len() / 2);
    let mut loads = Vec::new();
    for (node, spec) in nodes.iter().enumerate() {
        let total = match shape {
            _ if spec.age_ms < 0 => 0,
            0 if node >= empty => 0,
            1 if node == nodes.len() - 1 => 0,
            0 | 1 => even,
            _ => random.between(0, 200),
        };
        let total = u32::try_from(total).unwrap_or(0).min(spec.limit.unwrap_or(u32::MAX));
        for module in 0..modules {
            let count = total / modules + u32::from(module < total % modules);
            let sticky = u32::try_from(random.index(stickies)).unwrap_or(0);
            loads.push(Load { node, count, module, sticky, priority: random.pick(&[0, 0, 5, -5]) });
        }
    }
    loads
}

fn script(kind: Kind, count: usize, changes: usize, random: &mut Random) -> Vec<(When, Do)> {
    // The last node to drain, after which the rounds begin.
    let (mut script, last) = match kind {
        Kind::InPlace => (Deploy::InPlace.script(count), Some(count - 1)),
        Kind::ScaleIn => (Deploy::ScaleIn(changes).script(count), Some(changes - 1)),
        Kind::ScaleOut => ((count - changes..count).map(|node| (When::At(0), Do::Start(node))).collect(), None),
        _ => (Vec::new(), None),
    };
    let first = if script.is_empty() { 0 } else { 1 };
    for round in first..first + ROUNDS {
        for node in 0..count {
            let late = match kind {
                Kind::Staggered | Kind::Trouble => random.between(0, 3_000),
                _ => 0,
            };
            let ms = round * ROUND_MS + late;
            let when = last.map_or(When::At(ms), |last| When::After(last, ms));
            script.push((when, Do::Rebalance(node)));
        }
    }
    while kind == Kind::Trouble && random.chance(0.6) {
        let node = random.index(count);
        let at = random.between(0, ROUNDS * ROUND_MS);
        let soon = random.between(0, 4_000);
        let later = random.between(5, 4_000);
        match random.index(5) {
            0 => script.push((When::At(soon), Do::Drain(node))),
            1 => script.push((When::At(soon), Do::Cancel(node))),
            2 => script.extend([(When::At(at), Do::Kill(node)), (When::At(at + later), Do::Start(node))]),
            3 => script.push((When::At(at), Do::Vanish(node))),
            _ => script.extend([(When::At(at), Do::Disconnect(node)), (When::At(at + later), Do::Reconnect(node))]),
        }
    }
    script
}
