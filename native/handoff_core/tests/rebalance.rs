//! A rebalance moves its node's excess and nothing else.

mod common;

use common::{Drive, MOVED, WALL, config, count, limit, node, spec, view};
use handoff_core::time::Micros;
use handoff_core::{
    Action, Balance, ClusterView, Config, Ended, Engine, EngineError, Event, Goal, Idle, ModuleId, NodeView, Outcome,
    Reason, Resources, Scope, ServerId, Shared, Source, Usage, plan,
};

fn rebalance() -> Config {
    Config { goal: Goal::Rebalance, ..config() }
}

/// The cluster as the source sees it: the source with `own` servers, and others.
fn cluster(own: u64, others: &[(&str, u64)]) -> ClusterView {
    let with = |name: &str, servers| NodeView { servers: Some(servers), ..node(name) };
    let others = others.iter().map(|(name, servers)| with(name, *servers));
    view(std::iter::once(with("source@h", own)).chain(others).collect())
}

fn drive(own: usize, others: &[(&str, u64)]) -> Drive {
    Drive::new(rebalance(), &common::servers(own), cluster(own as u64, others))
}

fn balance(drive: &Drive) -> Balance {
    drive.report().balance.expect("a rebalance has one")
}

#[test]
fn a_source_moves_its_excess_to_the_node_that_lacks_it_and_keeps_the_rest() {
    let mut drive = drive(134, &[("b@h", 133), ("c@h", 133), ("d@h", 0)]);
    let moved = drive.move_all();
    assert_eq!((moved.len(), count(&moved, "d@h"), drive.finished), (34, 34, true));
    let report = drive.report();
    assert_eq!((report.moved, report.ended, report.total), (34, Some(Ended::Done), 134));
    assert_eq!(report.left.into_iter().collect::<Vec<_>>(), [(Reason::Kept, 100)]);
    let balance = balance(&drive);
    assert_eq!((balance.idle, balance.excess), (None, 34));
    let servers = |shares: &[handoff_core::NodeShare]| -> Vec<(String, u64)> {
        shares.iter().map(|share| (share.name.to_string(), share.servers)).collect()
    };
    let named = |names: [(&str, u64); 4]| names.map(|(name, servers)| (name.to_owned(), servers));
    assert_eq!(servers(&balance.before), named([("b@h", 133), ("c@h", 133), ("d@h", 0), ("source@h", 134)]));
    assert_eq!(servers(&balance.after), named([("b@h", 133), ("c@h", 133), ("d@h", 34), ("source@h", 100)]));
    assert!(balance.before.iter().all(|share| (share.share - 100.0).abs() < 1e-9));
}

#[test]
fn the_least_important_servers_move() {
    let servers: Vec<_> = (0..60).map(|id| spec(0, if id < 30 { i32::MIN } else { 7 })).collect();
    let mut drive = Drive::new(rebalance(), &servers, cluster(60, &[("b@h", 0)]));
    let moved = drive.move_all();
    assert_eq!(moved.len(), 30);
    assert!(moved.iter().all(|attempt| attempt.id < 30), "{moved:?}");
}

/// All other nodes are full, and the source has more servers than its limit.
fn full_cluster() -> ClusterView {
    let mut view = cluster(100, &[("b@h", 40)]);
    view.nodes[0].capacity = vec![limit(Scope::Total, 100, 60)];
    view.nodes[1].capacity = vec![limit(Scope::Total, 40, 40)];
    view
}

#[test]
fn nothing_moves_for_each_idle_reason_and_the_report_has_that_reason() {
    let full = ("b@h", 0);
    let changed = |at: usize, change: fn(&mut NodeView)| {
        let mut view = cluster(100, &[full]);
        change(&mut view.nodes[at]);
        view
    };
    let releases = |releases: [Option<&str>; 2]| {
        let mut view = cluster(100, &[full]);
        view.nodes.iter_mut().zip(releases).for_each(|(node, release)| node.generation = release.map(str::to_owned));
        view
    };
    let cases: [(Idle, ClusterView); 14] = [
        (Idle::WithinTolerance, cluster(100, &[("b@h", 91)])),
        (Idle::WithinTolerance, cluster(100, &[])),
        (Idle::TooFewServers, cluster(19, &[full])),
        (Idle::NodeDraining, changed(0, |node| node.draining = true)),
        (Idle::NodeDraining, changed(1, |node| node.draining = true)),
        (Idle::DeployInProgress, releases([Some("1"), Some("2")])),
        (Idle::UnknownRelease, releases([None, Some("2")])),
        (Idle::UnknownRelease, releases([Some("2"), None])),
        (Idle::UnknownLoad, changed(0, |node| node.servers = None)),
        (Idle::UnknownLoad, changed(1, |node| node.stamp_ms = WALL - 21_000)),
        (Idle::UnknownLoad, changed(0, |node| node.name = "other@h".into())),
        // The heartbeat is too old: the node does not count, and its share is unknown.
        (Idle::WithinTolerance, changed(1, |node| node.stamp_ms = WALL - 60_000)),
        (Idle::WithinTolerance, changed(1, |node| node.servers = None)),
        (Idle::NoTarget, full_cluster()),
    ];
    for (idle, view) in cases {
        let mut drive = Drive::new(rebalance(), &common::servers(100), view.clone());
        assert_eq!(drive.move_all(), [], "{idle:?}");
        let report = drive.report();
        assert_eq!((drive.finished, report.ended), (true, Some(Ended::Done)), "{idle:?}");
        assert_eq!(report.left.into_iter().collect::<Vec<_>>(), [(Reason::Kept, 100)]);
        assert_eq!(report.balance.map(|balance| (balance.idle, balance.excess)), Some((Some(idle), 0)));
        let plan = plan(&rebalance(), &common::servers(100), view).expect("valid");
        assert_eq!(plan.balance.and_then(|balance| balance.idle), Some(idle));
        assert_eq!(plan.reasons.into_iter().collect::<Vec<_>>(), [(Reason::Kept, 100)]);
    }
}

#[test]
fn a_rebalance_without_an_excess_waits_for_no_target() {
    let config = Config { wait_for_target_ms: 10_000, ..rebalance() };
    let mut drive = Drive::new(config, &common::servers(100), cluster(100, &[]));
    drive.poll();
    assert!(drive.finished);
}

#[test]
fn a_node_that_begins_to_drain_or_a_deploy_stops_the_rebalance_and_attempts_in_flight_end() {
    type Change = fn(&mut ClusterView);
    let others = [("b@h", 0), ("c@h", 50)];
    let changes: [(Idle, Change); 3] = [
        (Idle::NodeDraining, |view| view.nodes[0].draining = true),
        (Idle::NodeDraining, |view| view.nodes[2].draining = true),
        (Idle::DeployInProgress, |view| {
            view.nodes
                .iter_mut()
                .zip(["1", "1", "2"])
                .for_each(|(node, release)| node.generation = Some(release.into()));
        }),
    ];
    for (idle, change) in changes {
        let mut drive =
            Drive::new(Config { max_concurrency: 4, ..rebalance() }, &common::servers(100), cluster(100, &others));
        let started = drive.poll();
        assert_eq!(started.len(), 4);
        let mut view = cluster(100, &others);
        change(&mut view);
        drive.see(view);
        drive.finish(&started[0], Outcome::Untouched(handoff_core::Blame::Unknown));
        drive.later(5_000);
        assert_eq!(drive.poll(), [], "the one that still runs is not tried again");
        started[1..].iter().for_each(|attempt| drive.moved(attempt));
        assert_eq!(drive.poll(), []);
        assert!(drive.finished);
        let report = drive.report();
        assert_eq!((report.moved, report.left.get(&Reason::Kept)), (3, Some(&97)));
        assert_eq!(balance(&drive).idle, Some(idle));
    }
}

#[test]
fn a_lost_coordinator_ends_a_rebalance_as_a_drain_of_another_node_does_and_no_drain() {
    let lose = |goal| {
        let config = Config { goal, max_concurrency: 4, ..config() };
        let mut drive = Drive::new(config, &common::servers(100), cluster(100, &[("b@h", 0), ("c@h", 50)]));
        let started = drive.poll();
        drive.event(Event::CoordinatorLost).expect("it is not over");
        // One is stopped and has no place yet, and one still runs.
        drive.finish(&started[0], Outcome::Displaced(handoff_core::Blame::Server));
        drive.finish(&started[1], Outcome::Untouched(handoff_core::Blame::Server));
        started[2..].iter().for_each(|attempt| drive.moved(attempt));
        drive.later(5_000);
        let again = drive.poll();
        (started, again, drive)
    };
    let (started, again, mut drive) = lose(Goal::Rebalance);
    assert_eq!(again.iter().map(|attempt| attempt.id).collect::<Vec<_>>(), [started[0].id]);
    drive.moved(&again[0]);
    assert_eq!((drive.poll(), drive.finished), (Vec::new(), true));
    let report = drive.report();
    assert_eq!((report.moved, report.ended, report.left.get(&Reason::Kept)), (3, Some(Ended::Done), Some(&97)));
    assert_eq!((balance(&drive).idle, balance(&drive).excess), (Some(Idle::CoordinatorLost), 50));

    let (_, again, mut drive) = lose(Goal::Drain);
    again.iter().for_each(|attempt| drive.moved(attempt));
    drive.move_all();
    assert_eq!((drive.finished, drive.report().moved), (true, 100));
}

#[test]
fn a_later_view_reduces_the_moves_and_never_adds_any() {
    let config = || Config { max_concurrency: 1, ..rebalance() };
    let others = [("b@h", 0)];
    let mut drive = Drive::new(config(), &common::servers(100), cluster(100, &others));
    let first = drive.poll();
    let later = |servers| {
        let mut view = cluster(100, &[("b@h", servers)]);
        view.now_ms += 1_000;
        view.nodes.iter_mut().for_each(|node| node.stamp_ms += 1_000);
        view
    };
    // Another source has sent 40 servers there.
    drive.later(1_000);
    drive.see(later(40));
    drive.moved(&first[0]);
    let moved = 1 + drive.move_all().len();
    assert!((9..=11).contains(&moved), "{moved}");

    let mut drive = Drive::new(config(), &common::servers(100), cluster(100, &[("b@h", 60)]));
    drive.later(1_000);
    drive.see(later(0));
    assert_eq!(drive.move_all().len(), 20);
}

#[test]
fn another_server_moves_in_place_of_one_that_stays() {
    let mut drive = drive(100, &[("b@h", 0)]);
    let started = drive.poll();
    assert_eq!(started.len(), 50);
    drive.finish(&started[0], Outcome::NotStorable);
    started[1..].iter().for_each(|attempt| drive.moved(attempt));
    let more = drive.move_all();
    assert_eq!((more.len(), drive.report().moved), (1, 50));
    assert_eq!(drive.report().left.into_iter().collect::<Vec<_>>(), [(Reason::NotStorable, 1), (Reason::Kept, 49)]);
}

#[test]
fn a_stopped_server_goes_to_a_node_that_has_its_share_when_no_other_is_left() {
    let config = Config { max_concurrency: 1, ..rebalance() };
    let mut drive = Drive::new(config, &common::servers(100), cluster(100, &[("b@h", 0), ("c@h", 90)]));
    let started = drive.poll();
    assert_eq!(started[0].target, "b@h");
    drive.finish(&started[0], Outcome::Displaced(handoff_core::Blame::Server));
    let again = drive.poll();
    assert_eq!((again[0].id, &*again[0].target), (started[0].id, "c@h"));
}

#[test]
fn a_full_target_takes_no_more_than_its_limit() {
    let mut view = cluster(100, &[("b@h", 0), ("c@h", 0)]);
    view.nodes[1].capacity = vec![limit(Scope::Module(ModuleId(0)), 0, 5)];
    let mut drive = Drive::new(rebalance(), &common::servers(100), view);
    let moved = drive.move_all();
    assert_eq!((count(&moved, "b@h"), count(&moved, "c@h")), (5, 33));
    assert_eq!(drive.report().left.get(&Reason::NoTarget), Some(&28));
}

#[test]
fn limits_of_all_nodes_decide_their_shares() {
    let mut view = cluster(90, &[("b@h", 0), ("c@h", 0)]);
    for (node, most) in view.nodes.iter_mut().zip([100, 100, 400]) {
        let current = u32::try_from(node.servers.unwrap_or(0)).expect("small");
        node.capacity = vec![limit(Scope::Total, current, most)];
    }
    let mut drive = Drive::new(rebalance(), &common::servers(90), view);
    let moved = drive.move_all();
    assert_eq!((count(&moved, "b@h"), count(&moved, "c@h")), (15, 60));
}

#[test]
fn a_machine_that_is_busy_for_a_moment_moves_nothing() {
    let mut view = cluster(100, &[("b@h", 100)]);
    view.nodes[0].resources = Resources { cpu: Usage { used: Some(79.0), max: Some(80.0) }, ..Resources::default() };
    let mut drive = Drive::new(rebalance(), &common::servers(100), view);
    assert_eq!(drive.move_all(), []);
    assert_eq!(balance(&drive).idle, Some(Idle::WithinTolerance));
}

#[test]
fn sources_that_plan_by_the_same_view_fill_a_target_once() {
    let mut total = 0;
    for own in ["a@h", "b@h", "c@h"] {
        let mut view = cluster(134, &[("b@h", 133), ("c@h", 133), ("d@h", 0)]);
        view.nodes[0].name = "a@h".into();
        let config = Config { source: Source { name: own.into(), ..Source::default() }, ..rebalance() };
        let mut drive = Drive::new(config, &common::servers(133), view);
        total += drive.move_all().len();
    }
    assert_eq!(total, 100);
}

#[test]
fn a_plan_has_the_moves_of_the_rebalance() {
    let view = cluster(100, &[("b@h", 10), ("c@h", 40)]);
    let planned = plan(&rebalance(), &common::servers(100), view.clone()).expect("valid");
    let mut drive = Drive::new(rebalance(), &common::servers(100), view);
    let moved = drive.move_all();
    for (target, planned) in planned.targets.iter().zip(&planned.per_target) {
        assert_eq!(count(&moved, target) as u64, *planned, "{target}");
    }
    let (planned, done) = (planned.balance.expect("one"), balance(&drive));
    assert_eq!(planned, done);
    assert_eq!(done.after.iter().map(|share| share.servers).collect::<Vec<_>>(), [50, 50, 50]);
}

fn order(id: u32) -> Action {
    Action::Start { id: ServerId(id), target: "b@h".into(), attempt: 1, timeout: Micros::from_millis(1_000) }
}

#[test]
fn an_engine_that_follows_refuses_an_order_below_the_share() {
    let mut drive = drive(100, &[("b@h", 0)]);
    let mut taken = 0;
    for id in 0..100 {
        match drive.engine.follow(drive.now, &order(id), &mut drive.shared) {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error, EngineError::Unexpected { id: ServerId(id) });
                break;
            }
        }
        let attempt = common::Attempt { id, target: "b@h".into(), attempt: 1, timeout_ms: 1_000 };
        drive.moved(&attempt);
    }
    // Half of the servers is the share. A twentieth of it is within the tolerance.
    assert!((50..=54).contains(&taken), "{taken}");
    assert_eq!(drive.poll(), []);
    assert!(drive.finished);
}

#[test]
fn an_engine_that_follows_refuses_every_order_while_a_node_drains() {
    let mut view = cluster(100, &[("b@h", 0), ("c@h", 0)]);
    view.nodes[2].draining = true;
    let mut drive = Drive::new(rebalance(), &common::servers(100), view);
    let refused = drive.engine.follow(drive.now, &order(0), &mut drive.shared);
    assert_eq!(refused, Err(EngineError::Unexpected { id: ServerId(0) }));
}

#[test]
fn a_drain_limited_to_one_per_second_starts_one_per_second() {
    let config = Config { max_per_second: Some(1), ..config() };
    let mut drive = Drive::new(config, &common::servers(3), view(vec![node("b@h")]));
    let first = drive.poll();
    assert_eq!(first.len(), 1);
    drive.moved(&first[0]);
    assert_eq!((drive.poll(), drive.finished), (vec![], false));
    let wake = drive.wake.expect("it goes on by itself");
    assert!(wake > drive.now && wake.since(drive.now).as_millis() <= 1_000);
    drive.now = wake;
    assert_eq!(drive.poll().len(), 1);
}

#[test]
fn a_rebalance_that_ended_was_cancelled_or_was_given_up_leaves_nothing_in_the_ledger() {
    let ends: [fn(&mut Drive); 3] = [
        |drive| drop(drive.move_all()),
        |drive| {
            let started = drive.poll();
            drive.event(Event::Cancel).expect("it runs");
            let target = drive.shared.names.get("b@h").expect("in the view");
            assert_eq!(drive.shared.ledger.promised(target), 0, "only attempts in flight may still arrive");
            started.iter().for_each(|attempt| drive.moved(attempt));
            drive.poll();
        },
        // As the Rust node does when the source is lost.
        |drive| {
            drive.poll();
            drive.engine.give_up_places(&mut drive.shared);
        },
    ];
    for (number, end) in ends.iter().enumerate() {
        let config = Config { max_concurrency: 4, ..rebalance() };
        let mut drive = Drive::new(config, &common::servers(100), cluster(100, &[("b@h", 0)]));
        let [own, target] = ["source@h", "b@h"].map(|name| drive.shared.names.get(name).expect("in the view"));
        let recorded = |drive: &Drive| {
            let ledger = &drive.shared.ledger;
            (ledger.leaves(own).is_some(), ledger.promised(target) > 0, ledger.is_filled(target))
        };
        assert_eq!(recorded(&drive), (true, true, true), "end {number}");
        end(&mut drive);
        assert_eq!(recorded(&drive), (false, false, false), "end {number}");
    }
}

/// A source whose engine in the VM follows the one in the Rust node.
struct Session {
    leader: Engine,
    follower: Engine,
    own: Shared,
}

impl Session {
    fn new(own: &str, servers: usize, view: &ClusterView, now: Micros, shared: &mut Shared) -> Session {
        let config = Config { source: Source { name: own.into(), ..Source::default() }, ..rebalance() };
        let servers = common::servers(servers);
        let mut alone = Shared::new(&config);
        let follower = Engine::new(config.clone(), &servers, view.clone(), now, &mut alone).expect("valid");
        let leader = Engine::new(config, &servers, view.clone(), now, shared).expect("valid");
        Session { leader, follower, own: alone }
    }

    /// The starts of the leader, with their targets. The follower accepts all of them.
    fn starts(&mut self, now: Micros, shared: &mut Shared) -> Vec<(ServerId, u32, String)> {
        let actions = self.leader.poll(now, shared).actions;
        let starts = actions.iter().filter_map(|action| {
            self.follower.follow(now, action, &mut self.own).expect("the order fits");
            match action {
                Action::Start { id, attempt, target, .. } => Some((*id, *attempt, target.to_string())),
                Action::Release { .. } | Action::Finish => None,
            }
        });
        starts.collect()
    }

    fn moved(&mut self, (id, attempt): (ServerId, u32), now: Micros, shared: &mut Shared) {
        let latency = Micros::from_millis(40);
        let event = Event::Finished { id, attempt, outcome: MOVED, latency };
        self.follower.on_event(now, event.clone(), &mut self.own).expect("under way");
        self.leader.on_event(now, event, shared).expect("under way");
    }
}

/// The numbers of servers after rebalances of the first three nodes, which begin one after the other and
/// share a ledger. The numbers are correct when each source begins. `used` of the last machine is in use.
fn rebalanced_together(mut counts: [usize; 4], used: f64) -> [usize; 4] {
    let names = ["c@h", "b@h", "a@h", "d@h"];
    let mut shared = Shared::new(&rebalance());
    let mut sessions: Vec<Session> = Vec::new();
    let mut under_way = Vec::new();
    let mut now = Micros::from_millis(1_000);
    for round in 0..200 {
        if round % 2 == 0 && sessions.len() < 3 {
            let mut view = cluster(0, &[("b@h", 0), ("c@h", 0), ("d@h", 0)]);
            view.nodes.iter_mut().zip(names).for_each(|(node, name)| node.name = name.into());
            view.nodes[3].resources.cpu = Usage { used: Some(used), max: Some(1.0) };
            view.now_ms += i64::try_from(now.as_millis()).expect("small");
            for (node, count) in view.nodes.iter_mut().zip(counts) {
                (node.servers, node.counted_at_ms) = (Some(count as u64), Some(view.now_ms));
            }
            let own = sessions.len();
            sessions.push(Session::new(names[own], counts[own], &view, now, &mut shared));
        }
        // A server in flight is not counted at any node.
        for (own, session) in sessions.iter_mut().enumerate() {
            let starts = session.starts(now, &mut shared);
            counts[own] -= starts.len();
            under_way.extend(starts.into_iter().map(|start| (own, start)));
        }
        now = now + Micros::from_millis(10);
        let arrived = under_way.len().min(7);
        for (own, (id, attempt, target)) in under_way.drain(..arrived) {
            counts[names.iter().position(|name| *name == target).expect("one of them")] += 1;
            sessions[own].moved((id, attempt), now, &mut shared);
        }
    }
    assert!(sessions.iter().all(|session| session.leader.is_over() && session.follower.is_over()));
    counts
}

#[test]
fn sources_that_share_a_ledger_move_the_whole_excess_and_their_own_engines_refuse_no_order() {
    let counts = rebalanced_together([134, 133, 133, 0], 0.0);
    assert_eq!((counts[3], counts.iter().max()), (100, Some(&100)), "{counts:?}");
}

#[test]
fn the_last_source_on_a_shared_ledger_also_moves_its_part_to_a_node_that_lacked_more_than_the_tolerance() {
    // Without a common ledger every source sees that d lacks 32 servers. After the parts of a and b, d lacks
    // four, which is within the tolerance, and c alone is within the tolerance, too.
    let counts = rebalanced_together([122, 103, 103, 66], 0.0);
    assert_eq!((counts[3], counts.iter().max()), (98, Some(&99)), "{counts:?}");
}

#[test]
fn what_a_running_source_on_a_shared_ledger_keeps_takes_no_part_from_later_sources() {
    // The last machine is half busy, so a and b together have more to give than c and d lack: 75 and 42.86.
    let counts = rebalanced_together([150, 150, 0, 0], 0.5);
    assert_eq!((counts[0] + counts[1], counts[2] + counts[3]), (183, 117), "{counts:?}");
}

#[test]
fn a_source_tells_others_of_no_more_servers_than_it_moves() {
    // d and e have too few servers to move any. So b and c lack 28 servers, and only the source has some, 25.
    let view = cluster(40, &[("b@h", 0), ("c@h", 0), ("d@h", 16), ("e@h", 16)]);
    let mut drive = Drive::new(rebalance(), &common::servers(40), view);
    let names = ["b@h", "c@h"].map(|name| drive.shared.names.get(name).expect("known"));
    let comes = |drive: &Drive| names.iter().map(|node| drive.shared.ledger.promised(*node)).sum::<u64>();
    assert_eq!((balance(&drive).excess, comes(&drive)), (25, 25));
    let started = drive.poll();
    assert_eq!((started.len(), comes(&drive)), (25, 0));
}
