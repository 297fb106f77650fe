//! The checks of all rounds of a scenario together, against the true numbers of servers.
//!
//! - All rounds together move at most the excess at the beginning.
//! - One round suffices: after it every node has its share within the tolerance and one server.
//! - Nothing oscillates: when no node is beyond the tolerance by any numbers that a source may see, nothing
//!   moves. A node at the edge of the tolerance is beyond it by some of the wrong numbers and not by others,
//!   and rounding may leave a node beyond it by less than one server. So the round in which the excess moves
//!   is chance, but it moves once.

use handoff_core::{Goal, Report};

use crate::checker::share;
use crate::checker::{Rule, Violation};
use crate::rebalance::{Kind, ROUND_MS};
use crate::scenario::Scenario;
use crate::world::{DrainOutcome, Outcome, START};

/// Differences of computed shares.
const ROUNDING: f64 = 1e-3;

/// The true number of servers of each node that runs, with its place in the scenario.
type Loads = Vec<(usize, f64)>;

/// The rebalances that begin together.
struct Round<'a> {
    /// The servers at its beginning.
    loads: Loads,
    rebalances: Vec<&'a DrainOutcome>,
}

impl Round<'_> {
    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.rebalances.iter().filter_map(|rebalance| rebalance.report.as_ref())
    }

    fn moved(&self) -> f64 {
        number(self.reports().map(|report| report.moved).sum())
    }
}

#[expect(clippy::cast_precision_loss, reason = "servers of a run")]
fn number(count: u64) -> f64 {
    count as f64
}

fn loads(loads: &[Option<u32>]) -> Loads {
    loads.iter().enumerate().filter_map(|(node, load)| Some((node, f64::from((*load)?)))).collect()
}

fn rounds(outcome: &Outcome) -> Vec<Round<'_>> {
    let mut rounds: Vec<Round<'_>> = Vec::new();
    let rebalances = || outcome.drains.iter().filter(|drain| drain.goal == Goal::Rebalance);
    let first = rebalances().map(|rebalance| rebalance.began).min().unwrap_or(START);
    for rebalance in rebalances() {
        // The rebalances of a round begin within seconds.
        let round = (rebalance.began.since(first).as_millis() + ROUND_MS / 2) / ROUND_MS;
        match rounds.get_mut(usize::try_from(round).unwrap_or(usize::MAX)) {
            Some(round) => round.rebalances.push(rebalance),
            None => rounds.push(Round { loads: loads(&rebalance.loads), rebalances: vec![rebalance] }),
        }
    }
    rounds
}

impl Scenario {
    fn shares(&self, loads: &[(usize, f64)]) -> Vec<f64> {
        let limit = |node: usize| self.nodes[node].limit.map(f64::from);
        share::shares(&loads.iter().map(|(node, servers)| (*servers, limit(*node))).collect::<Vec<_>>())
    }

    fn excess(&self, loads: &[(usize, f64)]) -> f64 {
        loads.iter().zip(self.shares(loads)).map(|((_, servers), share)| (servers - share).max(0.0)).sum()
    }

    /// Whether every node is within the tolerance by all numbers that a source may see: its own is right, and
    /// each other one is wrong by at most the scenario's noise.
    fn is_settled(&self, loads: &[(usize, f64)]) -> bool {
        let seen = |servers: f64, sign: f64| (servers * (1.0 + sign * self.count_noise)).round();
        // The share of one node with so many servers, when the numbers of all others are wrong in one
        // direction.
        let share = |index: usize, servers: f64, others: f64| {
            let all = loads
                .iter()
                .enumerate()
                .map(|(other, (node, load))| (*node, if other == index { servers } else { seen(*load, others) }));
            self.shares(&all.collect::<Vec<_>>())[index]
        };
        loads.iter().enumerate().all(|(index, (_, servers))| {
            let few = seen(*servers, -1.0);
            let heavy = *servers > share(index, *servers, -1.0) * (1.0 + self.config.tolerance) - ROUNDING;
            let light = few < share(index, few, 1.0) * (1.0 - self.config.tolerance) + ROUNDING;
            !heavy && !light
        })
    }
}

/// The rounds of a run, and what they may do.
struct Run<'a> {
    scenario: &'a Scenario,
    outcome: &'a Outcome,
    rounds: Vec<Round<'a>>,
    /// Of the first round.
    shares: Vec<f64>,
    excess: f64,
    /// How many servers may go elsewhere. Sources whose numbers have different errors compute parts that do
    /// not fit together exactly, and a server that is down after a failed attempt goes to any node that may
    /// run it.
    noise: f64,
    /// The same for rebalances that begin one after the other without a common ledger: servers in flight
    /// while a source counts, and a tenth of the excess, because a source does not know where earlier sources
    /// will send the rest of theirs.
    between: f64,
}

/// The violations of the rules for all rounds together.
pub fn broken(scenario: &Scenario, outcome: &Outcome) -> Vec<Violation> {
    let rounds = rounds(outcome);
    let Some(loads) = rounds.first().map(|first| first.loads.clone()) else { return Vec::new() };
    if Kind::of(scenario.seed) == Kind::Trouble {
        return Vec::new();
    }
    let (shares, excess) = (scenario.shares(&loads), scenario.excess(&loads));
    let failures = rounds.iter().flat_map(Round::reports).map(|report| report.failures).sum();
    let all: f64 = loads.iter().map(|(_, servers)| servers).sum();
    let noise = all * scenario.count_noise + number(failures);
    let in_flight = f64::from(scenario.config.max_concurrency) * number(loads.len() as u64);
    let between = match (Kind::of(scenario.seed), scenario.coordinators) {
        (_, 1) => 0.0,
        (Kind::Staggered, _) => in_flight + excess / 10.0,
        (_, 0) => 0.0,
        // Sources with different ledgers may both round up.
        (_, _) => number(loads.len() as u64),
    };
    let run = Run { scenario, outcome, rounds, shares, excess, noise, between };
    let details = [run.moves_too_many(), run.moves_again(), run.is_uneven(&loads)].concat();
    details.into_iter().map(|detail| Violation { at: START, rule: Rule::Share, detail }).collect()
}

impl Run<'_> {
    fn moves_too_many(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let moved: f64 = self.rounds.iter().map(Round::moved).sum();
        let slack = self.noise + self.between + ROUNDING;
        if moved > self.excess + slack {
            broken.push(format!("{moved} moved, the excess of all is {:.2}, {slack:.2} more may be", self.excess));
        }
        let most = self.outcome.moves.iter().max().copied().unwrap_or(0);
        let drains = self.outcome.drains.iter().any(|drain| drain.goal == Goal::Drain);
        if most > 1 && !drains && self.noise + self.between == 0.0 {
            broken.push(format!("a server moved {most} times"));
        }
        broken
    }

    fn moves_again(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (number, round) in self.rounds.iter().enumerate().skip(1).filter(|(_, round)| round.moved() > 0.0) {
            let most = match self.scenario.is_settled(&round.loads) {
                true => 0.0,
                false => self.scenario.excess(&round.loads) + self.noise + self.between + ROUNDING,
            };
            if round.moved() > most {
                let (moved, loads) = (round.moved(), &round.loads);
                broken.push(format!("round {number} moves {moved}, at most {most:.2} may move: {loads:?}"));
            }
        }
        broken
    }

    /// What is wrong with the numbers of servers after each round.
    fn is_uneven(&self, before: &[(usize, f64)]) -> Vec<String> {
        let mut broken = Vec::new();
        let end = before.iter().map(|(node, _)| (*node, f64::from(self.outcome.loads[*node]))).collect();
        // A round in which attempts fail leaves the rest to the next one.
        let quiet = |round: &&[Round<'_>]| round[0].reports().all(|report| report.failures == 0);
        let between = self.rounds.windows(2).filter(quiet).map(|rounds| &rounds[1].loads);
        let (tolerance, noise) = (self.scenario.config.tolerance, 2.0 * self.scenario.count_noise);
        // Sources with a common ledger see what all of them have sent. One may take a target for full by its
        // numbers that another still fills by its own.
        let all: f64 = before.iter().map(|(_, servers)| servers).sum();
        let filled = if self.scenario.coordinators > 0 { all * self.scenario.count_noise } else { 0.0 };
        // Where all nodes are full, drains may have left some above their limits, and no node can take a server.
        let full = self.shares.iter().sum::<f64>() + ROUNDING < all;
        // A node with too few servers for a rebalance keeps its servers.
        let moves = |before: f64| before >= f64::from(self.scenario.config.min_servers);
        for loads in between.chain([&end]) {
            let nodes = || before.iter().zip(loads).zip(&self.shares).map(|(((_, b), (_, a)), share)| (*b, *a, *share));
            let spare = nodes().any(|(before, after, share)| {
                moves(before) && after > share * (1.0 + noise) + 1.0 + self.between + ROUNDING
            });
            for (before, after, share) in nodes() {
                let off = share * (tolerance + noise) + 1.0 + self.between + filled;
                let kept = after > share + off && moves(before) && !full;
                let robbed = after < share - off && before > share + off;
                let empty = after < share - off && spare;
                if kept || robbed || empty {
                    broken.push(format!("a node has {after} of {before}, its share is {share:.2}: {loads:?}"));
                }
            }
        }
        broken
    }
}
