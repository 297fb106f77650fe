//! Bytes written by real BEAMs are read as the right messages. test/vectors/wire/generate.exs has the values
//! that were written.

mod values;

use std::fs;
use std::path::PathBuf;

use etf::{Term, atom, tuple};
use handoff_core::{Balance, Goal, ModuleId, Report, ServerSpec, StickyId};
use handoff_wire::{
    DrainDone, DrainId, Message, PlanDone, PlanSummary, RebalanceOpen, Refuse, RefuseReason, ReportMessage, RequestId,
    Servers, WireError,
};
use values::{DRAIN, balance, expected, plan, report, with_balance};

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
    let done = Message::from(DrainDone { request: RequestId(3), report: with_balance() });
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
        assert_eq!(balance, Some(Balance { idle: None, ..values::balance() }));
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
            assert_eq!(report, Report { ended: None, ..values::report() });
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
