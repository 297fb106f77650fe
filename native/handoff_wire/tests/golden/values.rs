//! The messages whose bytes `test/vectors/wire` has, in its order.

use std::collections::BTreeMap;

use etf::{Atom, Pid};
use handoff_core::config::StickyLevel;
use handoff_core::event::{Blame, Event, Outcome};
use handoff_core::limiter::Learnt;
use handoff_core::quantiles::Summary;
use handoff_core::time::Micros;
use handoff_core::{
    Action, AtATime, Balance, Capacity, Config, Ended, Goal, Idle, ModuleId, NodeShare, NodeView, Progress, Reason,
    Report, Resources, Scope, ServerId, ServerSpec, Source, StickyId, Usage, WaitsFor,
};
use handoff_wire::{
    Announce, CordonDone, CordonRequest, Describe, Description, DrainClose, DrainDone, DrainId, DrainOpen,
    DrainRequest, DrainStart, DrainStep, Events, Keepalive, Message, MoveDone, MoveRequest, Opened, Orders, PlanDone,
    PlanSummary, ProgressUpdate, REBALANCE_SETTINGS, RebalanceOpen, RebalanceRequest, Refuse, RefuseReason,
    ReportMessage, RequestId, Servers, Started, SupervisorInfo, ViewPart, Welcome,
};

pub const DRAIN: DrainId = DrainId(7);

/// A message and its name in the vectors.
type Named = (&'static str, Message);

pub fn expected() -> Vec<Named> {
    let later = vec![("keys_of_later", announce("9.0", false, &[]))];
    [of_a_drain(), refusals(), descriptions_and_drains(), other_requests(), of_a_rebalance(), later].concat()
}

fn of_a_drain() -> Vec<Named> {
    let server = |module, sticky, priority| ServerSpec { module: ModuleId(module), sticky: StickyId(sticky), priority };
    let start =
        Action::Start { id: ServerId(0), target: "b@h".into(), attempt: 1, timeout: Micros::from_millis(15_000) };
    let view =
        |node| Message::from(ViewPart { id: DRAIN, part: 1, parts: 1, now_ms: 1_700_000_001_000, nodes: vec![node] });
    let missing = vec![ModuleId(0), ModuleId(1)];
    let asked = NodeView { counted_at_ms: Some(1_700_000_000_456), missing, ..node() };
    let servers = vec![server(0, 0, 0), server(1, 1, 10), server(0, 1, -5)];
    let actions = vec![start, Action::Release { id: ServerId(4) }, Action::Finish];
    vec![
        ("announce", announce("0.1.0", true, &[])),
        ("welcome", Welcome { agent: pid(), release: "0.1.0".into() }.into()),
        ("drain_open", open(config()).into()),
        ("opened", Opened { id: DRAIN }.into()),
        ("servers", Servers { id: DRAIN, first: 0, servers }.into()),
        ("view", view(node())),
        ("view_asked", view(asked)),
        ("drain_start", DrainStart { id: DRAIN, left_ms: 29_500 }.into()),
        ("started", Started { id: DRAIN }.into()),
        ("orders", Orders { id: DRAIN, actions }.into()),
        ("events", Events { id: DRAIN, events: events() }.into()),
        ("keepalive", Keepalive { id: DRAIN }.into()),
        ("progress", ProgressUpdate { id: DRAIN, progress: progress() }.into()),
        ("report", ReportMessage { id: DRAIN, report: report() }.into()),
        ("drain_close", DrainClose { id: DrainId(u64::MAX) }.into()),
    ]
}

fn refusals() -> Vec<Named> {
    let refuse = |id, reason| Message::from(Refuse { id, reason });
    let problems = vec!["timeout_ms: got 0, takes 1 to 86400000".into()];
    vec![
        ("refuse_unknown_drain", refuse(Some(DRAIN), RefuseReason::UnknownDrain)),
        ("refuse_version", refuse(None, RefuseReason::Version { got: 2, takes: 1 })),
        ("refuse_invalid", refuse(Some(DRAIN), RefuseReason::Invalid { problems })),
        ("refuse_full", refuse(Some(DRAIN), RefuseReason::Full { what: "drains".into(), limit: 100 })),
        ("refuse_out_of_order", refuse(Some(DRAIN), RefuseReason::OutOfOrder { what: "servers from 5000".into() })),
    ]
}

fn descriptions_and_drains() -> Vec<Named> {
    let description = |request, release: &str, knows, info| {
        let (release, supervisors) = (release.into(), vec![SupervisorInfo { name: supervisor(), ..info }]);
        Message::from(Description { request, release, now_ms: 1_700_000_001_000, supervisors, knows })
    };
    let info = SupervisorInfo {
        name: String::new(),
        generation: Some("1.2".into()),
        started_at_ms: Some(1_700_000_000_000),
        servers: 500,
        draining: true,
        cordoned: None,
    };
    let cordoned =
        SupervisorInfo { generation: None, started_at_ms: None, servers: 7, cordoned: Some(true), ..info.clone() };
    let drain = |request, timeout_ms, plan| {
        let (from, supervisor) = (pid(), supervisor());
        Message::from(DrainRequest { request, from, supervisor, timeout_ms, dry_run: true, plan })
    };
    vec![
        ("describe", Describe { request: RequestId(1), from: pid() }.into()),
        ("description", description(RequestId(1), "0.1.0", vec![], info)),
        ("drain_request", drain(RequestId(2), None, false)),
        ("drain_step", DrainStep { request: RequestId(2), progress: progress() }.into()),
        ("drain_done", DrainDone { request: RequestId(2), report: report() }.into()),
        ("plan_request", drain(RequestId(3), Some(5_000), true)),
        ("plan", PlanDone { request: RequestId(3), plan: plan() }.into()),
        ("description_cordoned", description(RequestId(4), "0.2.0", vec![REBALANCE_SETTINGS.into()], cordoned)),
    ]
}

fn other_requests() -> Vec<Named> {
    let cordon = |request, supervisor, cordon| {
        Message::from(CordonRequest { request: RequestId(request), from: pid(), supervisor, cordon })
    };
    let key_move = MoveRequest {
        request: RequestId(7),
        from: pid(),
        supervisor: supervisor(),
        key: "room/1".into(),
        to: Some("c@h".into()),
        timeout_ms: None,
    };
    let moved = MoveDone { request: RequestId(7), from: "b@h".into(), to: "c@h".into(), gap_us: 21_500, attempts: 1 };
    let rebalance = RebalanceRequest {
        request: RequestId(8),
        from: pid(),
        supervisor: supervisor(),
        dry_run: true,
        timeout_ms: Some(5_000),
        after_ms: None,
        tolerance: None,
        min_servers: None,
        max_per_second: None,
    };
    let with_settings = RebalanceRequest {
        request: RequestId(9),
        dry_run: false,
        timeout_ms: None,
        after_ms: Some(0),
        tolerance: Some(0.1),
        min_servers: Some(50),
        max_per_second: Some(5),
        ..rebalance.clone()
    };
    vec![
        ("cordon_request", cordon(5, None, true)),
        ("uncordon_request", cordon(6, Some(supervisor()), false)),
        ("cordon_done", CordonDone { request: RequestId(5), supervisors: vec![supervisor()] }.into()),
        ("move_request", key_move.into()),
        ("move_done", moved.into()),
        ("rebalance_request", rebalance.into()),
        ("rebalance_request_settings", with_settings.into()),
    ]
}

fn supervisor() -> String {
    "MyApp.Durable".into()
}

fn of_a_rebalance() -> Vec<Named> {
    vec![
        ("announce_goals", announce("0.2.0", true, &["drain", "rebalance"])),
        ("rebalance_open", RebalanceOpen(open(rebalance())).into()),
        ("rebalance_progress", ProgressUpdate { id: DRAIN, progress: Progress { excess: 34, ..progress() } }.into()),
        (
            "waiting_progress",
            ProgressUpdate { id: DRAIN, progress: Progress { waits_for: Some(WaitsFor::Limit), ..progress() } }.into(),
        ),
        ("rebalance_report", ReportMessage { id: DRAIN, report: with_balance() }.into()),
    ]
}

fn announce(release: &str, accepting: bool, goals: &[&str]) -> Message {
    let goals = goals.iter().map(|&goal| goal.into()).collect();
    Announce { node: pid(), release: release.into(), accepting, goals }.into()
}

fn open(config: Config) -> DrainOpen {
    DrainOpen {
        id: DRAIN,
        drainer: pid(),
        supervisor: supervisor(),
        storage: "s3://bucket/myapp/".into(),
        count: 3,
        modules: vec!["MyApp.A".into(), "MyApp.B".into()],
        config,
    }
}

fn pid() -> Pid {
    Pid { node: Atom::from("nonode@nohost"), id: 90, serial: 0, creation: 0 }
}

fn config() -> Config {
    let env = |name: &str, value: Option<&str>, delay_ms| StickyLevel::Env {
        name: name.into(),
        value: value.map(Into::into),
        delay_ms,
    };
    Config {
        source: Source {
            name: "a@h".into(),
            started_at_ms: Some(1_700_000_000_000),
            generation: Some("1.2".into()),
            region: None,
        },
        stickies: vec![
            vec![],
            vec![env("FLY_REGION", Some("ord"), 250), env("ZONE", None, 0), StickyLevel::Any { delay_ms: 1_000 }],
        ],
        modules: 2,
        ..Config::default()
    }
}

fn rebalance() -> Config {
    Config { goal: Goal::Rebalance, tolerance: 0.1, min_servers: 30, max_per_second: Some(100), ..config() }
}

pub fn balance() -> Balance {
    let share = |name: &str, servers, share| NodeShare { name: name.into(), servers, share };
    Balance {
        idle: Some(Idle::NodeDraining),
        excess: 34,
        before: vec![share("a@h", 134, 100.0), share("b@h", 66, 100.0)],
        after: vec![share("a@h", 120, 100.0), share("b@h", 80, 100.0)],
    }
}

fn node() -> NodeView {
    NodeView {
        name: "b@zürich".into(),
        stamp_ms: 1_700_000_000_123,
        counted_at_ms: None,
        started_at_ms: None,
        generation: Some("1.3".into()),
        servers: Some(7),
        region: Some("zrh".into()),
        draining: false,
        connected: true,
        capacity: vec![
            Capacity { scope: Scope::Total, current: 3.0, limit: 10.0 },
            Capacity { scope: Scope::Module(ModuleId(1)), current: 2.5, limit: 4.0 },
        ],
        resources: Resources { cpu: Usage { used: Some(12.5), max: Some(80.0) }, ..Resources::default() },
        env: vec![("FLY_REGION".into(), "ord".into())],
        missing: vec![],
    }
}

fn progress() -> Progress {
    Progress {
        total: 10,
        pending: 4,
        in_flight: 3,
        displaced: 1,
        stopping: 0,
        moved: 2,
        left: 0,
        failures: 1,
        retried: 1,
        limit: 8,
        excess: 0,
        waits_for: None,
        finished: false,
    }
}

pub fn report() -> Report {
    Report {
        total: 10,
        moved: 7,
        left: BTreeMap::from([(Reason::NoTarget, 1), (Reason::Gone, 1), (Reason::ModuleMissing, 1)]),
        retried: 1,
        gap: Summary { count: 7, p50: 1_000, p90: 2_000, p99: 3_000, max: 5_000_000_000 },
        duration: Micros(123_456),
        targets: BTreeMap::from([("b@h".into(), 4), ("c@h".into(), 3)]),
        concurrency: AtATime { last: 8, highest: 12 },
        learnt: Some(Learnt { limit: 8, latency: Micros(42_000), knee: true }),
        attempts: 11,
        failures: 1,
        ended: Some(Ended::Done),
        balance: None,
    }
}

/// The report of a rebalance.
pub fn with_balance() -> Report {
    Report { balance: Some(balance()), ..report() }
}

pub fn plan() -> PlanSummary {
    PlanSummary {
        total: 10,
        moves: 7,
        left: BTreeMap::from([(Reason::NoTarget, 1), (Reason::Excluded, 2)]),
        targets: BTreeMap::from([("b@h".into(), 4), ("c@h".into(), 3)]),
        timeout_ms: Some(30_000),
        estimate_us: Some(1_250_500),
        out_of_reach: vec!["d@h".into()],
        balance: None,
    }
}

fn events() -> Vec<Event> {
    let finished = |id, attempt, outcome, latency| Event::Finished {
        id: ServerId(id),
        attempt,
        outcome,
        latency: Micros(latency),
    };
    vec![
        finished(0, 1, Outcome::Moved { node: None }, 1_500),
        finished(1, 1, Outcome::Moved { node: Some("c@h".into()) }, 5_000_000_000),
        finished(2, 1, Outcome::RetrySame, 0),
        finished(3, 1, Outcome::Stopping, 0),
        finished(4, 2, Outcome::Displaced(Blame::Store), 0),
        finished(5, 1, Outcome::Untouched(Blame::Unknown), 0),
        finished(6, 1, Outcome::Gone, 0),
        finished(7, 1, Outcome::LostRace, 0),
        finished(8, 1, Outcome::Untouched(Blame::Store), 0),
        finished(9, 1, Outcome::NotStored, 0),
        finished(10, 1, Outcome::NotStorable, 0),
        finished(11, 1, Outcome::StopFailed, 0),
        Event::Stopped { id: ServerId(3) },
        Event::Released { id: ServerId(4) },
        Event::NodeDown("c@h".into()),
        Event::Cancel,
    ]
}
