//! Random scenarios: no combination of faults makes the engine violate a guarantee.
//!
//! `HANDOFF_SIM_RUNS` and `HANDOFF_SIM_FROM` set the number of seeds and the first one.

use handoff_sim::check::Family;
use handoff_sim::scenario::{Do, random};
use handoff_sim::{check, run};

/// Seeds of a run.
const RUNS: u64 = 10_000;
/// The number of seeds for rebalances, which last for minutes of virtual time.
const REBALANCES: u64 = 2_000;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}: got {text:?}, takes a number")),
        Err(_) => default,
    }
}

/// Runs the seeds. At least one server in `least` must move: scenarios in which next to nothing moves test
/// nothing.
fn keeps_every_promise(family: Family, runs: u64, least: u64) {
    let (first, runs) = (setting("HANDOFF_SIM_FROM", 0), setting("HANDOFF_SIM_RUNS", runs));
    println!("seeds {first} to {}", first + runs);
    let checked = check::check(family, first, runs);
    println!("{}", checked.describe());
    assert_eq!(checked.broken, 0, "{}", checked.describe());
    assert!(checked.moved > checked.servers / least, "{}", checked.describe());
}

#[test]
fn no_combination_of_faults_violates_a_guarantee() {
    keeps_every_promise(Family::Drains, RUNS, 4);
}

#[test]
fn no_rebalance_moves_more_than_the_excess_oscillates_or_overfills_a_node() {
    keeps_every_promise(Family::Rebalances, REBALANCES, 20);
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for seed in 0..50 {
        let (first, second) = (run(random::scenario(seed)), run(random::scenario(seed)));
        assert_eq!(
            (first.digest, first.events, first.moves),
            (second.digest, second.events, second.moves),
            "seed {seed}"
        );
    }
}

#[test]
fn random_scenarios_contain_every_kind_of_fault() {
    let scenarios: Vec<_> = (0..500).map(random::scenario).collect();
    let share = |which: fn(&handoff_sim::Scenario) -> bool| scenarios.iter().filter(|scenario| which(scenario)).count();
    for (trouble, count) in [
        ("none", share(|it| it.is_clean())),
        ("drains with one coordinator", share(|it| it.coordinators == 1)),
        ("drains with two coordinators", share(|it| it.coordinators == 2)),
        ("counts that are wrong", share(|it| it.count_noise > 0.0)),
        ("suspended targets", share(|it| it.nodes.iter().any(|node| !node.suspended.is_empty()))),
        ("killed nodes", share(|it| it.script.iter().any(|(_, what)| matches!(what, Do::Kill(_))))),
        ("killed sources", share(|it| it.script.iter().any(|(_, what)| matches!(what, Do::Kill(0))))),
        ("store weather", share(|it| !it.store.weather.is_empty())),
        ("hung servers", share(|it| it.faults.hang > 0.0)),
        ("stale nodes", share(|it| it.nodes.iter().any(|node| node.heartbeat_every_ms == 0))),
        ("wrong clocks", share(|it| it.nodes.iter().any(|node| node.skew_ms != 0))),
        ("limits", share(|it| it.nodes.iter().any(|node| node.limit.is_some()))),
        ("sticky rules", share(|it| it.stickies.len() > 1)),
    ] {
        assert!(count > 10, "{trouble}: in {count} of 500");
    }
}
