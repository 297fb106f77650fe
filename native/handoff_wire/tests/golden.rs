//! Bytes written by real BEAMs are read as the right messages. test/vectors/wire/generate.exs has the values
//! that were written.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use etf::{Atom, Pid, Term, atom, tuple};
use handoff_core::config::StickyLevel;
use handoff_core::event::{Blame, Event, Outcome};
use handoff_core::limiter::Learnt;
use handoff_core::quantiles::Summary;
use handoff_core::time::Micros;
use handoff_core::{
    Action, AtATime, Balance, Capacity, Config, Ended, Goal, Idle, ModuleId, NodeShare, NodeView, Progress, Reason,
    Report, Resources, Scope, ServerId, ServerSpec, Source, StickyId, Usage,
};
use handoff_wire::{
    Announce, CordonDone, CordonRequest, Describe, Description, DrainClose, DrainDone, DrainId, DrainOpen,
    DrainRequest, DrainStart, DrainStep, Events, Keepalive, Message, MoveDone, MoveRequest, Opened, Orders, PlanDone,
    PlanSummary, ProgressUpdate, REBALANCE_SETTINGS, RebalanceOpen, RebalanceRequest, Refuse, RefuseReason,
    ReportMessage, RequestId, Servers, Started, SupervisorInfo, ViewPart, Welcome, WireError,
};

const DRAIN: DrainId = DrainId(7);

#[derive(serde::Deserialize)]
struct File {
    origin: String,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    hex: String,
}

fn files() -> Vec<File> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test/vectors/wire");
    let read = |name: &str| {
        let text = fs::read_to_string(directory.join(name)).expect("the vectors are in the repository");
        serde_json::from_str(&text).expect("and are JSON")
    };
    vec![read("otp-25.json"), read("otp-29.json")]
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect()
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

fn balance() -> Balance {
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
        finished: false,
    }
}

fn report() -> Report {
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

fn plan() -> PlanSummary {
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

fn expected() -> Vec<(&'static str, Message)> {
    let server = |module, sticky, priority| ServerSpec { module: ModuleId(module), sticky: StickyId(sticky), priority };
    let refuse = |id, reason| Message::from(Refuse { id, reason });
    let start =
        Action::Start { id: ServerId(0), target: "b@h".into(), attempt: 1, timeout: Micros::from_millis(15_000) };
    let view =
        |node| Message::from(ViewPart { id: DRAIN, part: 1, parts: 1, now_ms: 1_700_000_001_000, nodes: vec![node] });
    let announce =
        |release: &str, accepting| Announce { node: pid(), release: release.into(), accepting, goals: vec![] };
    let goals = vec!["drain".into(), "rebalance".into()];
    let open = |config| DrainOpen {
        id: DRAIN,
        drainer: pid(),
        supervisor: "MyApp.Durable".into(),
        storage: "s3://bucket/myapp/".into(),
        count: 3,
        modules: vec!["MyApp.A".into(), "MyApp.B".into()],
        config,
    };
    vec![
        ("announce", announce("0.1.0", true).into()),
        ("welcome", Welcome { agent: pid(), release: "0.1.0".into() }.into()),
        ("drain_open", open(config()).into()),
        ("opened", Opened { id: DRAIN }.into()),
        (
            "servers",
            Servers { id: DRAIN, first: 0, servers: vec![server(0, 0, 0), server(1, 1, 10), server(0, 1, -5)] }.into(),
        ),
        ("view", view(node())),
        (
            "view_asked",
            view(NodeView {
                counted_at_ms: Some(1_700_000_000_456),
                missing: vec![ModuleId(0), ModuleId(1)],
                ..node()
            }),
        ),
        ("drain_start", DrainStart { id: DRAIN, left_ms: 29_500 }.into()),
        ("started", Started { id: DRAIN }.into()),
        (
            "orders",
            Orders { id: DRAIN, actions: vec![start, Action::Release { id: ServerId(4) }, Action::Finish] }.into(),
        ),
        ("events", Events { id: DRAIN, events: events() }.into()),
        ("keepalive", Keepalive { id: DRAIN }.into()),
        ("progress", ProgressUpdate { id: DRAIN, progress: progress() }.into()),
        ("report", ReportMessage { id: DRAIN, report: report() }.into()),
        ("drain_close", DrainClose { id: DrainId(u64::MAX) }.into()),
        ("refuse_unknown_drain", refuse(Some(DRAIN), RefuseReason::UnknownDrain)),
        ("refuse_version", refuse(None, RefuseReason::Version { got: 2, takes: 1 })),
        (
            "refuse_invalid",
            refuse(
                Some(DRAIN),
                RefuseReason::Invalid { problems: vec!["timeout_ms: got 0, takes 1 to 86400000".into()] },
            ),
        ),
        ("refuse_full", refuse(Some(DRAIN), RefuseReason::Full { what: "drains".into(), limit: 100 })),
        ("refuse_out_of_order", refuse(Some(DRAIN), RefuseReason::OutOfOrder { what: "servers from 5000".into() })),
        ("describe", Describe { request: RequestId(1), from: pid() }.into()),
        (
            "description",
            Description {
                request: RequestId(1),
                release: "0.1.0".into(),
                now_ms: 1_700_000_001_000,
                supervisors: vec![SupervisorInfo {
                    name: "MyApp.Durable".into(),
                    generation: Some("1.2".into()),
                    started_at_ms: Some(1_700_000_000_000),
                    servers: 500,
                    draining: true,
                    cordoned: None,
                }],
                knows: Vec::new(),
            }
            .into(),
        ),
        (
            "drain_request",
            DrainRequest {
                request: RequestId(2),
                from: pid(),
                supervisor: "MyApp.Durable".into(),
                timeout_ms: None,
                dry_run: true,
                plan: false,
            }
            .into(),
        ),
        ("drain_step", DrainStep { request: RequestId(2), progress: progress() }.into()),
        ("drain_done", DrainDone { request: RequestId(2), report: report() }.into()),
        ("plan_request", {
            let question = DrainRequest {
                request: RequestId(3),
                from: pid(),
                supervisor: "MyApp.Durable".into(),
                timeout_ms: Some(5_000),
                dry_run: true,
                plan: true,
            };
            question.into()
        }),
        ("plan", PlanDone { request: RequestId(3), plan: plan() }.into()),
        ("description_cordoned", {
            let supervisor = SupervisorInfo {
                name: "MyApp.Durable".into(),
                generation: None,
                started_at_ms: None,
                servers: 7,
                draining: true,
                cordoned: Some(true),
            };
            Description {
                request: RequestId(4),
                release: "0.2.0".into(),
                now_ms: 1_700_000_001_000,
                supervisors: vec![supervisor],
                knows: vec![REBALANCE_SETTINGS.into()],
            }
            .into()
        }),
        ("cordon_request", CordonRequest { request: RequestId(5), from: pid(), supervisor: None, cordon: true }.into()),
        ("uncordon_request", {
            let supervisor = Some("MyApp.Durable".into());
            CordonRequest { request: RequestId(6), from: pid(), supervisor, cordon: false }.into()
        }),
        ("cordon_done", CordonDone { request: RequestId(5), supervisors: vec!["MyApp.Durable".into()] }.into()),
        (
            "move_request",
            MoveRequest {
                request: RequestId(7),
                from: pid(),
                supervisor: "MyApp.Durable".into(),
                key: "room/1".into(),
                to: Some("c@h".into()),
                timeout_ms: None,
            }
            .into(),
        ),
        (
            "move_done",
            MoveDone { request: RequestId(7), from: "b@h".into(), to: "c@h".into(), gap_us: 21_500, attempts: 1 }
                .into(),
        ),
        (
            "rebalance_request",
            RebalanceRequest {
                request: RequestId(8),
                from: pid(),
                supervisor: "MyApp.Durable".into(),
                dry_run: true,
                timeout_ms: Some(5_000),
                tolerance: None,
                min_servers: None,
                max_per_second: None,
            }
            .into(),
        ),
        (
            "rebalance_request_settings",
            RebalanceRequest {
                request: RequestId(9),
                from: pid(),
                supervisor: "MyApp.Durable".into(),
                dry_run: false,
                timeout_ms: None,
                tolerance: Some(0.1),
                min_servers: Some(50),
                max_per_second: Some(5),
            }
            .into(),
        ),
        ("announce_goals", Announce { node: pid(), release: "0.2.0".into(), accepting: true, goals }.into()),
        ("rebalance_open", RebalanceOpen(open(rebalance())).into()),
        ("rebalance_progress", ProgressUpdate { id: DRAIN, progress: Progress { excess: 34, ..progress() } }.into()),
        (
            "rebalance_report",
            ReportMessage { id: DRAIN, report: Report { balance: Some(balance()), ..report() } }.into(),
        ),
        ("keys_of_later", announce("9.0", false).into()),
    ]
}

#[test]
fn every_message_of_a_beam_is_read_with_its_values() {
    let expected = expected();
    for file in files() {
        assert_eq!(file.cases.len(), expected.len(), "{}", file.origin);
        for (case, (name, message)) in file.cases.iter().zip(&expected) {
            assert_eq!(case.name, *name);
            let read = Message::from_bytes(&bytes(&case.hex)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(read, *message, "{name}, {}", file.origin);
        }
    }
}

#[test]
fn every_message_is_unchanged_after_encoding_and_stays_below_64_kilobytes() {
    for (name, message) in expected() {
        let bytes = message.to_bytes().expect("encodes");
        assert!(bytes.len() < 64 * 1024);
        assert_eq!(Message::from_bytes(&bytes).expect("reads back"), message, "{name}");
    }
}

#[test]
fn a_full_chunk_of_servers_stays_below_64_kilobytes() {
    let server = ServerSpec { module: ModuleId(u32::MAX), sticky: StickyId(u32::MAX), priority: i32::MIN };
    let servers = vec![server; handoff_wire::servers::PER_CHUNK];
    let bytes = Message::from(Servers { id: DrainId(u64::MAX), first: u32::MAX, servers }).to_bytes().expect("encodes");
    assert!(bytes.len() < 64 * 1024, "{}", bytes.len());
}

#[test]
fn a_goal_that_contradicts_the_kind_is_refused() {
    let (_, drain) = expected().into_iter().find(|(name, _)| *name == "drain_open").expect("listed");
    let (_, rebalance) = expected().into_iter().find(|(name, _)| *name == "rebalance_open").expect("listed");
    let (Message::DrainOpen(drain), Message::RebalanceOpen(RebalanceOpen(rebalance))) = (drain, rebalance) else {
        panic!("two kinds")
    };
    for message in [Message::from(rebalance), RebalanceOpen(drain).into()] {
        let read = Message::from_bytes(&message.to_bytes().expect("encodes"));
        assert!(matches!(read, Err(WireError::Term { source: etf::Error::Field { field: "goal", .. } })), "{read:?}");
    }
}

#[test]
fn a_report_with_an_unknown_idle_reason_is_still_read() {
    let done =
        Message::from(DrainDone { request: RequestId(3), report: Report { balance: Some(balance()), ..report() } });
    let plan =
        Message::from(PlanDone { request: RequestId(3), plan: PlanSummary { balance: Some(balance()), ..plan() } });
    for message in [done, plan] {
        let mut written = message.to_bytes().expect("encodes");
        let name = written.windows(13).position(|name| name == b"node_draining").expect("written");
        written[name..name + 13].copy_from_slice(b"later_release");
        let balance = match Message::from_bytes(&written).expect("readable") {
            Message::DrainDone(done) => done.report.balance,
            Message::Plan(done) => done.plan.balance,
            other => panic!("{other:?}"),
        };
        assert_eq!(balance, Some(Balance { idle: None, ..self::balance() }));
    }
}

#[test]
fn a_report_with_an_unknown_end_reason_is_still_read() {
    let done = Message::from(DrainDone { request: RequestId(3), report: report() });
    let of_session = Message::from(ReportMessage { id: DRAIN, report: report() });
    for message in [done, of_session] {
        for later in [atom("put_off"), tuple([atom("put_off"), etf::uint(7)])] {
            let mut written = message.to_bytes().expect("encodes");
            // An atom's bytes: tag, length, name.
            let known = written.windows(6).position(|bytes| bytes == b"w\x04done").expect("written");
            let without_version = etf::encode(&later).expect("encodes").split_off(1);
            written.splice(known..known + 6, without_version);
            let report = match Message::from_bytes(&written).expect("readable") {
                Message::DrainDone(done) => done.report,
                Message::Report(message) => message.report,
                other => panic!("{other:?}"),
            };
            assert_eq!(report, Report { ended: None, ..self::report() });
        }
    }
}

#[test]
fn a_refusal_with_a_reason_of_a_later_release_is_still_a_refusal() {
    let refused = |reason: Term| {
        let refuse = [atom("durable_handoff"), etf::uint(1), atom("refuse"), etf::uint(DRAIN.0), reason];
        Message::from_term(&tuple(refuse))
    };
    for later in [atom("put_off"), tuple([atom("put_off"), etf::uint(7), etf::text("until then")])] {
        let read = refused(later).expect("readable");
        let expected =
            Message::from(Refuse { id: Some(DRAIN), reason: RefuseReason::Other { name: "put_off".into() } });
        assert_eq!(read, expected);
        assert_eq!(Message::from_bytes(&read.to_bytes().expect("encodes")).expect("readable"), expected);
    }
    for wrong in [tuple([atom("silent"), etf::uint(7)]), atom("full"), tuple([etf::uint(7)]), tuple([])] {
        assert!(refused(wrong.clone()).is_err(), "{wrong:?}");
    }
}

/// How a Rust node of the first release reads each message: it knows these kinds and ignores unknown keys.
#[test]
fn a_rust_node_without_rebalances_refuses_the_kind_that_opens_one() {
    const FIRST_RELEASE: [&str; 7] =
        ["drain_open", "servers", "view", "drain_start", "events", "keepalive", "drain_close"];
    let opens = expected().into_iter().filter_map(|(_, message)| match message {
        Message::DrainOpen(open) => Some((message_kind(&open.clone().into()), open.config.goal)),
        Message::RebalanceOpen(RebalanceOpen(open)) => {
            Some((message_kind(&RebalanceOpen(open.clone()).into()), open.config.goal))
        }
        _ => None,
    });
    let opens: Vec<_> = opens.collect();
    assert_eq!(opens.len(), 2);
    for (kind, goal) in opens {
        assert_eq!(FIRST_RELEASE.contains(&&*kind), goal == Goal::Drain, "{kind}");
    }
}

/// The kind as it is on the wire.
fn message_kind(message: &Message) -> String {
    let term = message.to_term();
    let elements = etf::elements(&term).expect("a tuple");
    etf::atom_name(&elements[2]).expect("an atom").to_owned()
}

/// Truncating a message anywhere, or flipping any byte, gives a result and never a panic.
#[test]
fn truncated_and_flipped_messages_are_refused_or_read() {
    for file in files() {
        for case in &file.cases {
            let whole = bytes(&case.hex);
            for length in 0..whole.len() {
                assert!(Message::from_bytes(&whole[..length]).is_err(), "{} cut at {length}", case.name);
            }
            for at in 0..whole.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut flipped = whole.clone();
                    flipped[at] ^= flip;
                    let _either = Message::from_bytes(&flipped);
                }
            }
        }
    }
}
