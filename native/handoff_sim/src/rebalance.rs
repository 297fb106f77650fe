//! Scenarios of rebalances, from a seed: after a scale-out, a scale-in or an in-place deploy, with exact,
//! wrong or old numbers and all kinds of faults; and the checks of their results.

use handoff_core::{Config, Goal, Prefer, StickyPolicy};

use crate::checker::share::shares;
use crate::checker::{Rule, Violation};
use crate::cluster::NodeSpec;
use crate::random::Random;
use crate::scenario::deploy::{OLD_RELEASE, node};
use crate::scenario::{Do, Load, Noise, Scenario, Strategy, When, random};
use crate::world::{Outcome, START};

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
    Trouble,
}

impl Kind {
    /// The kind of scenario of a seed.
    pub fn of(seed: u64) -> Kind {
        [Kind::Exact, Kind::Noisy, Kind::Stale, Kind::Staggered, Kind::Trouble, Kind::Trouble]
            [usize::try_from(seed % 6).unwrap_or(0)]
    }
}

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x5851_F42D);
    let kind = Kind::of(seed);
    let trouble = kind == Kind::Trouble;
    let count = random.index(11) + 2;
    let nodes = nodes(kind, count, &mut random);
    let stickies = if trouble { random::stickies(&mut random) } else { vec![Vec::new()] };
    let modules = u32::try_from(random.between(1, 3)).unwrap_or(1);
    Scenario {
        name: format!("rebalance {seed}, {kind:?}"),
        seed,
        servers: loads(&nodes, modules, stickies.len(), &mut random),
        store: random::store(!trouble, &mut random),
        noise: Noise::default(),
        faults: if trouble { random::faults(&mut random) } else { random::quiet(&mut random) },
        script: script(kind, count, &mut random),
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
        coordinated: random.chance(0.5),
        asks: if trouble { random.chance(0.5) } else { kind != Kind::Stale },
        count_noise: match kind {
            Kind::Noisy => random.pick(&[0.005, 0.01, 0.02]),
            Kind::Trouble => random.pick(&[0.0, 0.1, 0.5]),
            Kind::Exact | Kind::Stale | Kind::Staggered => 0.0,
        },
        modules,
        stickies,
        nodes,
    }
}

fn nodes(kind: Kind, count: usize, random: &mut Random) -> Vec<NodeSpec> {
    let limited = random.chance(0.3);
    (0..count)
        .map(|index| {
            if kind == Kind::Trouble {
                let releases = if random.chance(0.9) { OLD_RELEASE } else { "3" };
                return NodeSpec { generation: releases, ..random::some_node(index, false, random) };
            }
            NodeSpec {
                heartbeat_every_ms: random.pick(&[1_000, 10_000]),
                heartbeat_delay_ms: random.pick(&[1, 20, 900]),
                limit: limited.then(|| u32::try_from(random.between(100, 400)).unwrap_or(100)),
                ..node(index, OLD_RELEASE, random.pick(&[60_000, 86_400_000]))
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

fn script(kind: Kind, count: usize, random: &mut Random) -> Vec<(When, Do)> {
    let mut script = Vec::new();
    for round in 0..ROUNDS {
        for node in 0..count {
            let late = match kind {
                Kind::Staggered | Kind::Trouble => random.between(0, 3_000),
                Kind::Exact | Kind::Noisy | Kind::Stale => 0,
            };
            script.push((When::At(round * ROUND_MS + late), Do::Rebalance(node)));
        }
    }
    while kind == Kind::Trouble && random.chance(0.6) {
        let node = random.index(count);
        let at = random.between(0, ROUNDS * ROUND_MS);
        let soon = random.between(0, 4_000);
        // A rebalance ends with its node, so nodes end between two rounds.
        let between = random.between(0, ROUNDS) * ROUND_MS + random.between(40_000, 50_000);
        let later = random.between(5, 4_000);
        match random.index(5) {
            0 => script.push((When::At(soon), Do::Drain(node))),
            1 => script.push((When::At(soon), Do::Cancel(node))),
            2 => script.extend([(When::At(between), Do::Kill(node)), (When::At(between + later), Do::Start(node))]),
            3 => script.push((When::At(between), Do::Vanish(node))),
            _ => script.extend([(When::At(at), Do::Disconnect(node)), (When::At(at + later), Do::Reconnect(node))]),
        }
    }
    script
}

/// The violations of the rules for all rounds together.
pub fn broken(scenario: &Scenario, outcome: &Outcome) -> Vec<Violation> {
    let kind = Kind::of(scenario.seed);
    let mut broken = Vec::new();
    let mut breach = |detail: String| broken.push(Violation { at: START, rule: Rule::Share, detail });
    if kind == Kind::Trouble {
        return broken;
    }
    let loads = |node: usize| scenario.servers.iter().filter(|load| load.node == node).map(|load| load.count).sum();
    let before: Vec<u32> = (0..scenario.nodes.len()).map(loads).collect();
    let limits = scenario.nodes.iter().map(|node| node.limit.map(f64::from));
    let shares = shares(&before.iter().copied().map(f64::from).zip(limits).collect::<Vec<_>>());
    let all: f64 = before.iter().copied().map(f64::from).sum();
    let excess: f64 = before.iter().zip(&shares).map(|(servers, share)| (f64::from(*servers) - share).max(0.0)).sum();
    #[expect(clippy::cast_precision_loss, reason = "servers and nodes of a run")]
    let (nodes, moved) = (before.len() as f64, outcome.moved() as f64);
    // The tolerance: sources whose numbers have different errors compute parts that do not fit together
    // exactly, and a server that is down after a failed attempt goes to any node that may run it.
    let failures: u64 = outcome.drains.iter().filter_map(|drain| Some(drain.report.as_ref()?.failures)).sum();
    #[expect(clippy::cast_precision_loss, reason = "attempts of a run")]
    let noise = all * scenario.count_noise + failures as f64;
    // Servers in flight while a source counts. Without a common ledger a source also does not know where
    // earlier sources will send the rest of their excess, so a tenth may go to the wrong node.
    let in_flight = f64::from(scenario.config.max_concurrency) * nodes;
    let alone = kind == Kind::Staggered && !scenario.coordinated;
    let between = if alone { in_flight + excess / 10.0 } else { 0.0 };
    let rounding = 1e-3;
    let slack = noise + between + rounding;
    if moved > excess + slack {
        breach(format!("{moved} moved, the excess of all is {excess:.2}, {slack:.2} more may be: {before:?}"));
    }
    for round in 1..ROUNDS {
        let of_round = outcome
            .drains
            .iter()
            .filter(|drain| drain.goal == Goal::Rebalance && drain.began.since(START).as_millis() / ROUND_MS == round);
        let again: u64 = of_round.filter_map(|drain| drain.report.as_ref()).map(|report| report.moved).sum();
        #[expect(clippy::cast_precision_loss, reason = "servers of a run")]
        let again = again as f64;
        if again > noise && (!alone || round > 1) {
            breach(format!("round {round} moves {again} more: {before:?}, then {:?}", outcome.loads));
        }
    }
    if let Some(most) = outcome.moves.iter().max().filter(|most| **most > 1 && noise + between == 0.0) {
        breach(format!("a server moved {most} times"));
    }
    for ((after, before), share) in outcome.loads.iter().zip(&before).zip(&shares) {
        let (after, before) = (f64::from(*after), f64::from(*before));
        let off = share * (scenario.config.tolerance + 2.0 * scenario.count_noise) + 1.0 + between;
        // A node with too few servers for a rebalance keeps its servers.
        if after > share + off && before >= f64::from(scenario.config.min_servers) {
            breach(format!("a node ends with {after} of {before}, its share is {share:.2}: {:?}", outcome.loads));
        }
        if after < share - off && excess > 0.0 && before > share + off {
            breach(format!("a node ends with {after} of {before}, below its share of {share:.2}"));
        }
    }
    broken
}
