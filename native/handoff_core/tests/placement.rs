//! Where servers go: balance, limits, tiers, sticky levels, reasons.

mod common;

use handoff_core::ids::NodeTable;
use handoff_core::ledger::Ledger;
use handoff_core::placement::{Access, Choice, Class, Placement};
use handoff_core::time::Micros;
use proptest::prelude::*;

use common::{Drive, WALL, config, count, limit, node, servers, spec, view};
use handoff_core::{
    ClusterView, Config, ModuleId, NodeView, Reason, Resources, Scope, StickyId, StickyLevel, StickyPolicy, Usage, plan,
};

#[test]
fn servers_spread_evenly_without_any_report() {
    let mut drive = Drive::new(config(), &servers(500), view(vec![node("a@h"), node("b@h")]));
    let all = drive.move_all();
    assert_eq!((count(&all, "a@h"), count(&all, "b@h")), (250, 250));
}

#[test]
fn a_node_with_fewer_servers_is_filled_first() {
    let nodes = vec![NodeView { servers: Some(100), ..node("a@h") }, NodeView { servers: Some(0), ..node("b@h") }];
    let mut drive = Drive::new(config(), &servers(150), view(nodes));
    let all = drive.move_all();
    assert_eq!((count(&all, "a@h"), count(&all, "b@h")), (25, 125));
}

#[test]
fn a_node_with_room_for_three_gets_three() {
    let nodes = vec![
        NodeView { capacity: vec![limit(Scope::Total, 7, 10)], ..node("a@h") },
        NodeView { capacity: vec![limit(Scope::Module(ModuleId(0)), 0, 2)], ..node("b@h") },
    ];
    let mut drive = Drive::new(config(), &servers(9), view(nodes));
    let all = drive.move_all();
    assert_eq!((count(&all, "a@h"), count(&all, "b@h")), (3, 2));
    assert!(drive.finished);
    assert_eq!(drive.report().left, [(Reason::Capacity, 4)].into());
}

#[test]
fn arrivals_that_a_heartbeat_reports_are_not_counted_twice() {
    let at = |current, stamp_ms| NodeView { stamp_ms, capacity: vec![limit(Scope::Total, current, 5)], ..node("a@h") };
    let mut drive = Drive::new(Config { max_concurrency: 2, ..config() }, &servers(9), view(vec![at(0, WALL)]));
    let first = drive.poll();
    drive.later(10);
    first.iter().for_each(|attempt| drive.moved(attempt));
    drive.later(20);
    drive.see(ClusterView { now_ms: WALL + 30, nodes: vec![at(2, WALL + 20)] });
    assert_eq!(drive.move_all().len(), 3, "2 of 5 are reported, so 3 fit");
}

/// Moves 200 servers, forty at a time, to a@h and b@h, which start empty. In every round a@h writes a
/// heartbeat when the servers in flight are registered there and the source does not know it yet. `numbers`
/// sets the numbers in that heartbeat. b@h writes none. Returns the number of servers that each got.
fn split_beside_heartbeats(numbers: impl Fn(u64, NodeView) -> NodeView) -> (usize, usize) {
    let (mut on_a, mut on_b) = (0, 0);
    let seen = |now_ms, on_a, wrote_ms| ClusterView {
        now_ms,
        nodes: vec![numbers(on_a, NodeView { stamp_ms: wrote_ms, ..node("a@h") }), numbers(0, node("b@h"))],
    };
    let config = Config { max_concurrency: 40, ..config() };
    let mut drive = Drive::new(config, &servers(200), seen(WALL, 0, WALL));
    let mut now_ms = WALL;
    loop {
        let round = drive.poll();
        if drive.finished {
            return (on_a, on_b);
        }
        on_a += count(&round, "a@h");
        on_b += count(&round, "b@h");
        drive.later(200);
        now_ms += 200;
        drive.see(seen(now_ms, on_a as u64, now_ms));
        drive.later(200);
        now_ms += 200;
        round.iter().for_each(|attempt| drive.moved(attempt));
    }
}

#[test]
fn heartbeats_that_count_servers_in_flight_do_not_make_their_node_look_fuller() {
    assert_eq!(split_beside_heartbeats(|count, node| NodeView { servers: Some(count), ..node }), (100, 100));
    let of_limit = |count: u64, node| NodeView {
        capacity: vec![limit(Scope::Total, u32::try_from(count).expect("few"), 1_000)],
        ..node
    };
    assert_eq!(split_beside_heartbeats(of_limit), (100, 100));
}

#[test]
fn heartbeats_without_numbers_do_not_make_their_node_look_empty() {
    assert_eq!(split_beside_heartbeats(|_count, node| node), (100, 100));
}

#[test]
fn a_count_newer_than_its_heartbeat_is_kept_when_the_same_heartbeat_is_read_again() {
    let reported = |on_a, counted_at_ms| {
        let servers = |name, count| NodeView { servers: Some(count), ..node(name) };
        view(vec![NodeView { counted_at_ms, ..servers("a@h", on_a) }, servers("b@h", 0)])
    };
    let asked_at_ms = node("a@h").stamp_ms + 1;
    let mut drive = Drive::new(config(), &servers(80), reported(100, Some(asked_at_ms)));
    drive.see(reported(0, None));
    let all = drive.move_all();
    assert_eq!((count(&all, "a@h"), count(&all, "b@h")), (0, 80), "asked for, a@h had 100; its heartbeat says 0");
}

#[test]
fn nodes_of_the_new_release_come_first_and_older_ones_last() {
    let aged = |name, age_ms: i64, generation: &str| NodeView {
        started_at_ms: Some(WALL - age_ms),
        generation: Some(generation.into()),
        ..node(name)
    };
    let mut config = config();
    config.source.generation = Some("2".into());
    let nodes = vec![aged("older@h", 7_200_000, "1"), aged("same@h", 7_200_000, "2"), aged("new@h", 10_000, "3")];
    let mut drive = Drive::new(config.clone(), &servers(10), view(nodes.clone()));
    assert_eq!(count(&drive.move_all(), "new@h"), 10);
    let mut drive = Drive::new(config.clone(), &servers(10), view(nodes[..2].to_vec()));
    assert_eq!(count(&drive.move_all(), "same@h"), 10);
    config.prefer = handoff_core::Prefer::None;
    let mut drive = Drive::new(config, &servers(9), view(nodes));
    assert_eq!(count(&drive.move_all(), "older@h"), 3);
}

#[test]
fn a_busier_machine_gets_fewer_servers_but_not_none() {
    let machine = |name, used| NodeView {
        resources: Resources { cpu: Usage { used: Some(used), max: Some(100.0) }, ..Resources::default() },
        ..node(name)
    };
    let mut drive = Drive::new(config(), &servers(100), view(vec![machine("a@h", 75.0), machine("b@h", 25.0)]));
    let all = drive.move_all();
    assert_eq!((count(&all, "a@h"), count(&all, "b@h")), (25, 75));
}

#[test]
fn the_source_region_breaks_a_tie() {
    let mut config = config();
    config.source.region = Some("ord".into());
    let nodes = vec![node("a@h"), NodeView { region: Some("ord".into()), ..node("b@h") }];
    let mut drive = Drive::new(config, &servers(1), view(nodes));
    assert_eq!(drive.poll()[0].target, "b@h");
}

#[test]
fn a_node_that_is_not_connected_is_no_target() {
    let nodes = vec![NodeView { connected: false, ..node("a@h") }];
    let mut drive = Drive::new(config(), &servers(2), view(nodes));
    assert!(drive.poll().is_empty() && drive.finished);
    assert_eq!(drive.report().left, [(Reason::NoTarget, 2)].into());
}

/// One module is new, and every release has the other one. The release of n1 has both.
#[test]
fn a_server_goes_only_to_nodes_with_its_module() {
    let specs: Vec<_> = (0..6).map(|index| spec(index % 3, 0)).collect();
    let nodes = vec![
        NodeView { missing: vec![ModuleId(0), ModuleId(1)], ..node("a@h") },
        NodeView { missing: vec![ModuleId(0)], ..node("b@h") },
    ];
    let config = Config { modules: 3, ..config() };
    let mut drive = Drive::new(config, &specs, view(nodes));
    let started = drive.move_all();
    let on_a: Vec<u32> =
        started.iter().filter(|attempt| attempt.target == "a@h").map(|attempt| attempt.id % 3).collect();
    assert!(started.len() == 4 && on_a.iter().all(|module| *module == 2), "{started:?}");
    assert_eq!(drive.report().left, [(Reason::ModuleMissing, 2)].into());
}

#[test]
fn a_full_node_with_the_module_is_reported_before_one_without_it() {
    let nodes = vec![
        NodeView { missing: vec![ModuleId(0)], ..node("a@h") },
        NodeView { capacity: vec![limit(Scope::Total, 3, 3)], ..node("b@h") },
    ];
    let mut drive = Drive::new(config(), &servers(1), view(nodes));
    assert!(drive.poll().is_empty());
    assert_eq!(drive.report().left, [(Reason::Capacity, 1)].into());
}

fn sticky_config(policy: StickyPolicy, delay_ms: u64) -> Config {
    let levels = vec![
        StickyLevel::Env { name: "MACHINE".into(), value: Some("m1".into()), delay_ms },
        StickyLevel::Env { name: "REGION".into(), value: Some("ord".into()), delay_ms: 0 },
    ];
    Config { sticky: policy, stickies: vec![levels], ..config() }
}

fn in_region(name: &str, region: &str) -> NodeView {
    NodeView { env: vec![("REGION".into(), region.into())], ..node(name) }
}

#[test]
fn a_sticky_level_behind_a_delay_is_locked_while_the_server_runs() {
    let nodes = vec![in_region("a@h", "ord")];
    let mut drive = Drive::new(sticky_config(StickyPolicy::Gated, 60_000), &servers(4), view(nodes.clone()));
    assert!(drive.poll().is_empty() && drive.finished);
    assert_eq!(drive.report().left, [(Reason::StickyLocked, 4)].into());
    for policy in [StickyPolicy::AnyLevel, StickyPolicy::Ignore] {
        let mut drive = Drive::new(sticky_config(policy, 60_000), &servers(4), view(nodes.clone()));
        assert_eq!(drive.move_all().len(), 4, "{policy:?}");
    }
}

#[test]
fn any_level_still_refuses_a_node_that_matches_no_level() {
    let nodes = vec![in_region("a@h", "ams")];
    let mut drive = Drive::new(sticky_config(StickyPolicy::AnyLevel, 0), &servers(1), view(nodes));
    assert!(drive.poll().is_empty());
    assert_eq!(drive.report().left, [(Reason::StickyLocked, 1)].into());
}

#[test]
fn classes_of_different_modules_do_not_share_the_limit_of_one_module() {
    let nodes = vec![NodeView { capacity: vec![limit(Scope::Module(ModuleId(1)), 0, 2)], ..node("a@h") }];
    let specs: Vec<_> = (0..8).map(|index| spec(index % 2, 0)).collect();
    let mut drive = Drive::new(Config { modules: 2, ..config() }, &specs, view(nodes));
    let all = drive.move_all();
    assert_eq!(all.iter().filter(|attempt| attempt.id % 2 == 1).count(), 2);
    assert_eq!(all.iter().filter(|attempt| attempt.id % 2 == 0).count(), 4);
}

#[test]
fn the_plan_has_the_target_or_the_reason_of_each_server() {
    let nodes = vec![
        NodeView { capacity: vec![limit(Scope::Total, 0, 2)], ..node("a@h") },
        NodeView { capacity: vec![limit(Scope::Total, 0, 3)], ..node("b@h") },
    ];
    let specs: Vec<_> = (0..6).map(|priority| spec(0, priority)).collect();
    let plan = plan(&config(), &specs, view(nodes)).expect("valid");
    assert_eq!(plan.per_target, [2, 3]);
    assert_eq!(plan.reasons, [(Reason::Capacity, 1)].into());
    assert_eq!(plan.assignments[0], Err(Reason::Capacity), "the lowest priority is left");
}

#[test]
fn servers_with_an_index_outside_the_tables_are_refused() {
    let error = plan(&config(), &[spec(1, 0)], view(vec![])).expect_err("module 1 of 1");
    assert!(error.to_string().contains("outside of 1 modules"), "{error}");
}

proptest! {
    /// The heap makes the same choice as a comparison of all nodes.
    #[test]
    fn the_cheap_choice_is_the_best_one(
        rows in prop::collection::vec((0..30_u32, prop::option::of(1..40_u32), 0..3_i64, prop::option::of(0..9_u64)), 1..12),
        steps in prop::collection::vec((0..2_usize, 0..6_u8), 1..200),
    ) {
        let nodes = rows.iter().enumerate().map(|(index, (current, room, age, servers))| NodeView {
            servers: *servers,
            started_at_ms: Some(WALL - age * 100_000),
            capacity: room.iter().map(|room| limit(Scope::Total, *current, current + room)).collect(),
            ..node(&format!("n{index}@h"))
        });
        let (config, classes) = (Config { modules: 2, ..config() }, [ModuleId(0), ModuleId(1)]);
        let mut placement =
            Placement::new(classes.map(|module| Class { module, sticky: StickyId(0) }).to_vec());
        let (mut names, mut ledger) = (NodeTable::default(), Ledger::default());
        placement.update(view(nodes.collect()), Micros::ZERO, &mut names, &mut ledger);
        let mut assigned = Vec::new();
        for (class, dice) in steps {
            let best = placement.choose_displaced(class, &config, &ledger, &[], |_| Access::Open);
            let cheap = placement.choose(class, &config, &ledger, |_| Access::Open);
            prop_assert_eq!(cheap, best);
            match cheap {
                Choice::Node(node) => {
                    ledger.assign(node, classes[class]);
                    assigned.push((node, classes[class]));
                }
                _ => prop_assert!(!names.is_empty()),
            }
            if dice == 0 && !assigned.is_empty() {
                let (node, module) = assigned.swap_remove(assigned.len() / 2);
                ledger.withdraw(node, module);
            }
        }
    }
}
