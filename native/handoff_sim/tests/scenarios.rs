//! The named scenarios have their expected results for every seed.

use handoff_sim::scenario::deploy::Deploy;
use handoff_sim::scenario::named::NAMED;
use handoff_sim::scenario::{Scenario, Strategy};
use handoff_sim::tables::{moves, scale, stores};
use handoff_sim::{check, run};

#[test]
fn every_named_scenario_keeps_every_guarantee_and_has_its_expected_result() {
    for named in NAMED {
        for seed in 1..=5 {
            let outcome = run(named.scenario(seed));
            let told = check::describe(&outcome, 0);
            assert!(outcome.broken.is_empty(), "{told}");
            #[expect(clippy::cast_precision_loss, reason = "servers of a run")]
            let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
            let moved = share(outcome.moved(), outcome.total());
            assert!(moved >= named.expect.moved, "{moved} moved: {told}");
            let mean = moves::mean_moves(&outcome);
            assert!(mean <= named.expect.moves, "{mean} moves a server: {told}");
            let down = share(outcome.down, outcome.moves.len() as u64);
            assert!(down <= named.expect.down, "{down} down at the end: {told}");
        }
    }
}

#[test]
fn a_server_moves_less_often_in_a_rolling_deploy_than_with_the_newest_heartbeat() {
    for deploy in [Deploy::Surge, Deploy::InPlace] {
        let mean = |strategy| moves::mean_moves(&run(moves::scenario(deploy, 16, strategy, 1)));
        let (naive, busy, ours) = (mean(Strategy::NewestHeartbeat), mean(Strategy::LeastBusy), mean(Strategy::Engine));
        assert!(ours < naive && ours <= busy, "{deploy:?}: naive {naive}, least busy {busy}, ours {ours}");
    }
}

#[test]
fn one_round_of_rebalances_after_an_in_place_deploy_moves_the_excess_and_no_more() {
    for nodes in [4, 16] {
        let (drained, balanced) = (moves::in_place(nodes, false, 1), moves::in_place(nodes, true, 1));
        let told = check::describe(&balanced, 0);
        assert!(balanced.broken.is_empty(), "{told}");
        assert_eq!((moves::rounds(&balanced), balanced.down), (1, 0), "{told}");
        let fullest = |outcome| moves::imbalance(outcome, Deploy::InPlace, nodes);
        // The tolerance, and one server of fifty.
        assert!(
            fullest(&drained) > 1.2 && fullest(&balanced) <= 1.07,
            "{:?}, then {:?}",
            drained.loads,
            balanced.loads
        );
        let mean = f64::from(drained.loads.iter().sum::<u32>()) / f64::from(u32::try_from(nodes).expect("few"));
        let excess: f64 = drained.loads.iter().map(|load| (f64::from(*load) - mean).max(0.0)).sum();
        let more = balanced.moved() - drained.moved();
        assert!(more as f64 <= excess.ceil(), "{more} moved, the excess is {excess}: {told}");
    }
}

#[test]
fn drains_within_one_heartbeat_interval_spread_evenly_once_nodes_are_asked_for_their_count() {
    for nodes in [4, 16] {
        let fullest = |asks| {
            let scenario = moves::scenario(Deploy::Surge, nodes, Strategy::Engine, 1);
            moves::imbalance(&run(Scenario { asks, ..scenario }), Deploy::Surge, nodes)
        };
        let (heartbeats, asked) = (fullest(false), fullest(true));
        assert!(asked < 1.1 && asked < heartbeats, "{nodes} nodes: {heartbeats} by heartbeats alone, {asked} asked");
    }
}

#[test]
fn servers_spread_in_a_scale_in_where_both_simple_rules_pile_them_up() {
    let deploy = Deploy::ScaleIn(4);
    let fullest = |strategy| moves::imbalance(&run(moves::scenario(deploy, 16, strategy, 1)), deploy, 16);
    let (naive, busy, ours) =
        (fullest(Strategy::NewestHeartbeat), fullest(Strategy::LeastBusy), fullest(Strategy::Engine));
    assert!(ours < naive && ours < busy, "naive {naive}, least busy {busy}, ours {ours}");
}

#[test]
fn the_limiter_is_near_the_best_fixed_limit_on_a_store_with_eight_slots() {
    let shape = &stores::shapes()[0];
    let (best, blind, ours) =
        (stores::measure(shape, Some(8), 3), stores::measure(shape, Some(50), 3), stores::measure(shape, None, 3));
    assert!(ours.drain <= best.drain * 1.3, "drain: {ours:?}, fixed 8: {best:?}");
    assert!(ours.p50 <= blind.p50 / 2.0, "gap: {ours:?}, fixed 50: {blind:?}");
}

#[test]
fn ten_coordinated_drains_share_one_ceiling_and_keep_every_limit() {
    let outcome = run(scale::scenario(20_000, 100, 1));
    assert!(outcome.broken.is_empty(), "{}", check::describe(&outcome, 0));
    assert_eq!(outcome.moved(), 20_000);
}
