//! Drains on one storage: what they share, and what is returned when one ends.

use std::collections::{BTreeMap, VecDeque};

use handoff_core::limiter::Learnt;
use handoff_core::{Capacity, Goal, Scope, StickyLevel, WaitsFor};

use super::*;

#[test]
fn two_drains_on_one_storage_share_its_limit_and_its_targets() {
    let mut service = service();
    let first = starts(&start(&mut service, MS(0), "a@h", 100, &["c@h", "d@h"]));
    assert_eq!(first.len(), 8, "all permits");
    let second = starts(&start(&mut service, MS(0), "b@h", 100, &["c@h", "d@h"]));
    assert_eq!(second.len(), 0, "none left");
    let mut in_flight: VecDeque<(&str, (ServerId, u32, String))> =
        first.into_iter().map(|start| ("a@h", start)).collect();
    let (mut per_target, mut per_source) = (BTreeMap::new(), BTreeMap::new());
    let mut now = MS(0);
    while let Some((source, (id, attempt, target))) = in_flight.pop_front() {
        now = now + MS(1);
        *per_target.entry(target).or_insert(0) += 1;
        *per_source.entry(source).or_insert(0) += 1;
        if per_source.values().sum::<i32>() == 100 {
            let (a, b) = (per_source["a@h"], per_source["b@h"]);
            assert!(a.abs_diff(b) <= 20, "{a} and {b}: both have their turn");
        }
        for peer in ["a@h", "b@h"] {
            service.receive(now, &name(peer), None, Keepalive { id: ID }.into());
        }
        service.receive(now, &name(source), None, finished(id, attempt, Outcome::Moved { node: None }).into());
        service.advance(now);
        let outputs = service.take_outputs();
        for peer in ["a@h", "b@h"] {
            in_flight.extend(starts(&sent_to(outputs.clone(), peer)).into_iter().map(|start| (peer, start)));
        }
        assert!(in_flight.len() <= 8, "the limit is one for both");
    }
    assert_eq!(per_source, BTreeMap::from([("a@h", 100), ("b@h", 100)]));
    assert_eq!(per_target, BTreeMap::from([("c@h".to_owned(), 100), ("d@h".to_owned(), 100)]));
}

#[test]
fn a_drain_without_a_permit_says_that_it_waits_for_the_limit() {
    let mut service = service();
    for peer in ["a@h", "b@h"] {
        start(&mut service, MS(0), peer, 100, &["c@h", "d@h"]);
    }
    let now = MS(KEEPALIVE_MS);
    service.advance(now);
    let outputs = service.take_outputs();
    let waits_for = |peer| {
        let progress = sent_to(outputs.clone(), peer).into_iter().find_map(|message| match message {
            Message::Progress(update) => Some(update.progress),
            _ => None,
        });
        progress.expect("sent twice a second").waits_for
    };
    assert_eq!((waits_for("a@h"), waits_for("b@h")), (None, Some(WaitsFor::Limit)));
    let shown: Vec<_> = service.drains(now).into_iter().map(|drain| drain.waits_for).collect();
    assert_eq!(shown, [None, Some("limit".to_owned())]);
}

/// Opens and starts a drain of `count` servers with this configuration.
fn start_with(service: &mut Service, now: Micros, peer: &str, count: u32, config: Config) -> Vec<Message> {
    tell(service, now, peer, DrainOpen { config, ..open(peer, count) });
    tell(service, now, peer, servers(0, count));
    tell(service, now, peer, view(&["c@h", "d@h"]));
    tell(service, now, peer, DrainStart { id: ID, left_ms: 30_000 })
}

fn adaptive(peer: &str, max_concurrency: u32, learnt: Option<Learnt>) -> Config {
    Config { max_concurrency, learnt, concurrency: Concurrency::Adaptive, ..config(peer) }
}

#[test]
fn a_drain_is_not_held_to_the_ceiling_of_a_rebalance_before_it() {
    let learnt = Some(Learnt { limit: 50, latency: MS(100), knee: false });
    for known_to_rebalance in [None, learnt] {
        let mut service = service();
        let rebalance = Config { goal: Goal::Rebalance, ..adaptive("a@h", 10, known_to_rebalance) };
        assert_eq!(starts(&start_with(&mut service, MS(0), "a@h", 5, rebalance)), [], "an idle rebalance");
        service.peer_down(MS(1_000), "a@h");
        let first = start_with(&mut service, MS(31_000), "b@h", 100, adaptive("b@h", 50, learnt));
        assert_eq!(starts(&first).len(), 50, "as many as were learnt");
    }
}

#[test]
fn a_drain_that_joins_a_rebalance_takes_the_ceiling_to_its_own() {
    let mut service = service();
    let few = Config { max_concurrency: 2, ..config("a@h") };
    assert_eq!(starts(&start_with(&mut service, MS(0), "a@h", 100, few)).len(), 2);
    assert_eq!(starts(&start(&mut service, MS(0), "b@h", 100, &["c@h", "d@h"])).len(), 6, "8 together");
    let limits = service.drains(MS(0)).iter().map(|drain| drain.limit).collect::<Vec<_>>();
    assert_eq!(limits, [2, 8], "each has its own");
}

#[test]
fn a_drain_alone_on_a_storage_has_its_own_mode_and_ceiling() {
    let mut service = service();
    start(&mut service, MS(0), "a@h", 100, &["c@h", "d@h"]);
    service.peer_down(MS(1_000), "a@h");
    let first = start_with(&mut service, MS(2_000), "b@h", 100, adaptive("b@h", 50, None));
    assert_eq!(starts(&first).len(), 3, "the search begins");
    service.peer_down(MS(3_000), "b@h");
    let few = Config { max_concurrency: 2, ..config("c@h") };
    start_with(&mut service, MS(4_000), "c@h", 100, few.clone());
    let both = start_with(&mut service, MS(4_000), "d@h", 100, Config { source: config("d@h").source, ..few });
    assert_eq!(starts(&both).len(), 0, "2 together, whatever was before");
}

/// Two drains, each of which may have 8 servers in flight. The first one has all 8, and their attempts hang.
fn beside_a_drain_that_hangs(mode: Concurrency) -> Service {
    let mut service = service();
    let known = Some(Learnt { limit: 8, latency: MS(100), knee: true });
    let config = |peer: &str| Config { concurrency: mode, learnt: known, ..config(peer) };
    assert_eq!(starts(&start_with(&mut service, MS(0), "a@h", 100, config("a@h"))).len(), 8);
    assert_eq!(starts(&start_with(&mut service, MS(0), "b@h", 100, config("b@h"))).len(), 0, "it may be the store");
    service
}

/// The time passes, and both drains are alive.
fn pass(service: &mut Service, now: Micros) {
    for peer in ["a@h", "b@h"] {
        service.receive(now, &name(peer), None, Keepalive { id: ID }.into());
    }
    service.advance(now);
}

#[test]
fn a_drain_whose_attempts_all_hang_does_not_hold_up_another_one() {
    let mut service = beside_a_drain_that_hangs(Concurrency::Adaptive);
    let (mut now, mut canary) = (MS(0), Vec::new());
    while canary.is_empty() && now < MS(10_000) {
        now = service.wake().expect("a canary is due");
        pass(&mut service, now);
        canary = starts(&sent_to(service.take_outputs(), "b@h"));
    }
    assert_eq!(canary.len(), 1);
    let (id, attempt, _) = canary[0].clone();
    let more = tell(&mut service, now + MS(20), "b@h", finished(id, attempt, Outcome::Moved { node: None }));
    assert_eq!(starts(&more).len(), 8, "the store serves, so the servers of the first drain hang");
}

#[test]
fn attempts_that_hang_do_not_count_for_another_drain_at_a_fixed_limit_either() {
    let mut service = beside_a_drain_that_hangs(Concurrency::Fixed);
    let served = finished(ServerId(0), 1, Outcome::Moved { node: None });
    service.receive(MS(10), &name("a@h"), None, served.into());
    pass(&mut service, MS(10));
    let orders = service.take_outputs();
    let (id, attempt, _) = starts(&sent_to(orders.clone(), "b@h")).first().cloned().expect("b@h is first in its turn");
    assert_eq!(starts(&sent_to(orders, "a@h")), []);
    let more = tell(&mut service, MS(60), "b@h", finished(id, attempt, Outcome::Moved { node: None }));
    assert_eq!(starts(&more).len(), 7, "and one more of the first drain, of which 7 hang");
}

#[test]
fn drains_on_different_storages_share_nothing() {
    let mut service = service();
    start(&mut service, MS(0), "a@h", 100, &["c@h"]);
    let other = DrainOpen { storage: "another".to_owned(), ..open("b@h", 100) };
    tell(&mut service, MS(0), "b@h", other);
    tell(&mut service, MS(0), "b@h", servers(0, 100));
    tell(&mut service, MS(0), "b@h", view(&["c@h"]));
    let answers = tell(&mut service, MS(0), "b@h", DrainStart { id: ID, left_ms: 30_000 });
    assert_eq!(starts(&answers).len(), 8);
}

#[test]
fn a_drainer_that_falls_silent_is_forgotten_after_two_seconds_and_its_permits_are_free() {
    let mut service = service();
    start(&mut service, MS(0), "a@h", 100, &["c@h"]);
    assert_eq!(starts(&start(&mut service, MS(1_000), "b@h", 100, &["c@h"])).len(), 0);
    service.advance(MS(1_999));
    assert_eq!(service.drains(MS(1_999)).len(), 2);
    service.take_outputs();
    service.advance(MS(2_000));
    let outputs = service.take_outputs();
    assert_eq!(refusal(&sent_to(outputs.clone(), "a@h")), Some(&RefuseReason::Silent));
    assert!(outputs.contains(&Output::Demonitor { key: Key { peer: name("a@h"), id: ID } }));
    assert_eq!(starts(&sent_to(outputs, "b@h")).len(), 8, "what the silent one held");
}

/// How the drain of a@h may end before it is over.
const ENDS: [fn(&mut Service, Micros); 3] = [
    |service, now| service.drainer_down(now, &Key { peer: name("a@h"), id: ID }),
    |service, now| service.peer_down(now, "a@h"),
    |service, now| service.receive(now, &name("a@h"), None, DrainClose { id: ID }.into()),
];

#[test]
fn a_drainer_that_ends_or_disconnects_returns_its_permits() {
    for end in ENDS {
        let mut service = service();
        start(&mut service, MS(0), "a@h", 100, &["c@h"]);
        start(&mut service, MS(0), "b@h", 100, &["c@h"]);
        end(&mut service, MS(10));
        service.advance(MS(10));
        let outputs = service.take_outputs();
        assert_eq!(starts(&sent_to(outputs.clone(), "b@h")).len(), 8);
        assert_eq!(sent_to(outputs, "a@h"), [], "no process is left to send to");
    }
}

#[test]
fn an_outcome_after_the_end_of_a_drain_still_counts_for_the_other_drains() {
    let mut service = service();
    let (id, attempt, _) = starts(&start(&mut service, MS(0), "a@h", 1, &["c@h"]))[0].clone();
    let cancel = Events { id: ID, events: vec![Event::Cancel] };
    tell(&mut service, MS(1), "a@h", cancel);
    let mut at = 1;
    while service.drains(MS(at))[0].stage != "over" && at < 40_000 {
        at += 500;
        tell(&mut service, MS(at), "a@h", Keepalive { id: ID });
    }
    assert_eq!(service.drains(MS(at))[0].stage, "over", "at its deadline");
    let late = finished(id, attempt, Outcome::Displaced(Blame::Target));
    tell(&mut service, MS(at), "a@h", late);
    start(&mut service, MS(at), "b@h", 100, &["c@h"]);
    assert_eq!(service.drains(MS(at)).iter().map(|drain| drain.in_flight).max(), Some(8), "no permit is lost");
}

/// Opens a drain that names its modules in this order and has `count` servers of `module` and one target.
fn start_modules(
    service: &mut Service,
    peer: &str,
    modules: &[&str],
    module: u32,
    count: u32,
    target: NodeView,
) -> Vec<Message> {
    let config = Config { modules: 2, ..config(peer) };
    let modules = modules.iter().map(|name| (*name).to_owned()).collect();
    tell(service, MS(0), peer, DrainOpen { modules, config, ..open(peer, count) });
    let server = ServerSpec { module: ModuleId(module), sticky: StickyId(0), priority: 0 };
    tell(service, MS(0), peer, Servers { id: ID, first: 0, servers: vec![server; count as usize] });
    tell(service, MS(0), peer, of_target(target));
    tell(service, MS(0), peer, DrainStart { id: ID, left_ms: 30_000 })
}

fn of_target(target: NodeView) -> ViewPart {
    ViewPart { id: ID, part: 1, parts: 1, now_ms: target.stamp_ms, nodes: vec![target] }
}

fn target(stamp_ms: i64, limit: Option<(u32, f64)>) -> NodeView {
    let capacity =
        limit.map(|(module, limit)| Capacity { scope: Scope::Module(ModuleId(module)), current: 0.0, limit });
    let capacity = capacity.into_iter().collect();
    NodeView { name: "t@h".to_owned(), connected: true, stamp_ms, capacity, ..NodeView::default() }
}

#[test]
fn drains_that_number_modules_differently_share_the_limit_of_a_module() {
    let mut service = service();
    let first = start_modules(&mut service, "a@h", &["M", "N"], 1, 3, target(0, Some((1, 4.0))));
    assert_eq!(starts(&first).len(), 3, "three of N, of four that fit");
    let second = start_modules(&mut service, "b@h", &["N", "M"], 0, 3, target(0, Some((0, 4.0))));
    assert_eq!(starts(&second).len(), 1, "one more of N");
}

#[test]
fn a_drain_that_ends_or_disconnects_returns_its_places_at_a_limited_target() {
    for end in ENDS {
        let mut service = service();
        let first = starts(&start_modules(&mut service, "a@h", &["M", "N"], 0, 9, target(0, Some((0, 4.0)))));
        assert_eq!(first.len(), 4, "as many as fit");
        // One waits for its next attempt, and keeps its place until then.
        let (id, attempt, _) = first[0].clone();
        assert_eq!(starts(&tell(&mut service, MS(0), "a@h", finished(id, attempt, Outcome::RetrySame))), []);
        end(&mut service, MS(0));
        let second = start_modules(&mut service, "b@h", &["M", "N"], 0, 9, target(0, Some((0, 4.0))));
        assert_eq!(starts(&second).len(), 4);
    }
}

#[test]
fn a_limit_that_one_drain_knows_holds_after_another_drain_sends_a_newer_report() {
    let mut service = service();
    let first = start_modules(&mut service, "a@h", &["M", "N"], 1, 9, target(0, Some((1, 2.0))));
    let first = starts(&first);
    assert_eq!(first.len(), 2, "two of N fit");
    let second = start_modules(&mut service, "b@h", &["M", "X"], 0, 1, target(5_000, None));
    assert_eq!(starts(&second).len(), 1);
    let (id, attempt, _) = first[0].clone();
    let more = tell(&mut service, MS(10), "a@h", finished(id, attempt, Outcome::Moved { node: None }));
    assert_eq!(starts(&more).len(), 0, "the newer report says nothing of N, and N is as full as it was");
}

/// Two drains name the same heartbeat of their one target, and the second has asked the target later. The first
/// has servers of a module that the second does not have. The drains' data arrive in the order b, a. Returns how
/// many of the first one's servers move.
fn moved_beside_a_later_answer(started: [&str; 2], count: u32, own: &NodeView, levels: &[StickyLevel]) -> u32 {
    let asked_at = |ms, node: NodeView| NodeView { counted_at_ms: Some(ms), ..node };
    let drains = [
        ("b@h", vec!["M", "X"], 0, 1, asked_at(7_000, target(5_000, None))),
        ("a@h", vec!["M", "N"], 1, count, asked_at(6_000, own.clone())),
    ];
    let mut service = service();
    for (peer, modules, module, count, target) in drains {
        let config = Config { modules: 2, stickies: vec![Vec::new(), levels.to_vec()], ..config(peer) };
        let modules = modules.into_iter().map(str::to_owned).collect();
        let server = ServerSpec { module: ModuleId(module), sticky: StickyId(module), priority: 0 };
        tell(&mut service, MS(0), peer, DrainOpen { modules, config, ..open(peer, count) });
        tell(&mut service, MS(0), peer, Servers { id: ID, first: 0, servers: vec![server; count as usize] });
        tell(&mut service, MS(0), peer, of_target(target));
    }
    let mut in_flight: VecDeque<(ServerId, u32, String)> = VecDeque::new();
    for peer in started {
        let orders = starts(&tell(&mut service, MS(0), peer, DrainStart { id: ID, left_ms: 30_000 }));
        in_flight.extend(orders.into_iter().filter(|_| peer == "a@h"));
    }
    let mut moved = 0;
    while let Some((id, attempt, _)) = in_flight.pop_front() {
        let arrived = finished(id, attempt, Outcome::Moved { node: None });
        in_flight.extend(starts(&tell(&mut service, MS(10), "a@h", arrived)));
        moved += 1;
    }
    moved
}

#[test]
fn a_limit_that_one_drain_knows_holds_after_another_drain_asks_the_node_later() {
    for started in [["b@h", "a@h"], ["a@h", "b@h"]] {
        let limited = target(5_000, Some((1, 2.0)));
        assert_eq!(moved_beside_a_later_answer(started, 9, &limited, &[]), 2, "{started:?}");
    }
}

#[test]
fn a_variable_that_one_drain_knows_holds_after_another_drain_asks_the_node_later() {
    let region = StickyLevel::Env { name: "REGION".to_owned(), value: Some("eu".to_owned()), delay_ms: 0 };
    for started in [["b@h", "a@h"], ["a@h", "b@h"]] {
        let near = NodeView { env: vec![("REGION".to_owned(), "eu".to_owned())], ..target(5_000, None) };
        assert_eq!(moved_beside_a_later_answer(started, 12, &near, std::slice::from_ref(&region)), 12, "{started:?}");
    }
}

#[test]
fn the_limits_of_a_node_do_not_hold_after_its_restart() {
    let mut service = service();
    let first = start_modules(&mut service, "a@h", &["M", "N"], 1, 9, target(0, Some((1, 2.0))));
    assert_eq!(starts(&first).len(), 2);
    let restarted = NodeView { started_at_ms: Some(4_000), ..target(5_000, None) };
    let second = start_modules(&mut service, "b@h", &["M", "N"], 1, 3, restarted);
    assert_eq!(starts(&second).len(), 3);
}

#[test]
fn a_newer_report_of_another_drain_does_not_hide_that_the_node_has_begun_to_drain() {
    let mut service = service();
    start_modules(&mut service, "a@h", &["M", "N"], 0, 1, target(5_000, None));
    let draining = NodeView { draining: true, ..target(1_000, None) };
    let second = start_modules(&mut service, "b@h", &["M", "N"], 0, 1, draining);
    assert_eq!(starts(&second).len(), 0);
}

#[test]
fn drains_that_number_modules_differently_keep_servers_off_nodes_without_their_module() {
    let lacking = |stamp_ms, module| NodeView { missing: vec![ModuleId(module)], ..target(stamp_ms, None) };
    let mut service = service();
    let first = start_modules(&mut service, "a@h", &["M", "N"], 1, 3, lacking(5_000, 1));
    assert_eq!(starts(&first).len(), 0, "it lacks N");
    let second = start_modules(&mut service, "b@h", &["N", "M"], 1, 3, lacking(5_000, 0));
    assert_eq!(starts(&second).len(), 3, "it has M");
    // Another drain has received a newer report, and has asked for other modules.
    start_modules(&mut service, "c@h", &["X", "M"], 1, 1, target(9_000, None));
    let third = start_modules(&mut service, "d@h", &["N", "M"], 0, 3, lacking(6_000, 0));
    assert_eq!(starts(&third).len(), 0, "it still lacks N");
}

#[test]
fn a_module_number_without_a_name_ends_its_own_drain() {
    let mut service = service();
    tell(&mut service, MS(0), "a@h", open("a@h", 10));
    let answers = tell(&mut service, MS(0), "a@h", of_target(target(0, Some((1, 2.0)))));
    assert!(matches!(refusal(&answers), Some(RefuseReason::Invalid { .. })), "{answers:?}");
}

#[test]
fn a_storage_is_forgotten_without_any_message() {
    let mut service = service();
    start(&mut service, MS(0), "a@h", 1, &["c@h"]);
    service.peer_down(MS(1_000), "a@h");
    assert_eq!(service.wake(), Some(MS(61_000)));
    service.advance(MS(61_000));
    assert_eq!((service.wake(), service.storages.len()), (None, 0));
}
