//! Randomly damaged golden messages: every input gives a result and never a panic, and accepted messages are
//! within the limits. The entry point is the one that a fuzzer would use: [`Message::from_bytes`], a pure
//! function of bytes.

use handoff_core::config::MAX_SERVERS;
use handoff_core::{Action, Config, Event, ModuleId, NodeView, ServerSpec, StickyId};
use handoff_wire::{
    DrainId, DrainOpen, Events, Message, Orders, Refuse, RefuseReason, Servers, ViewPart, ViewParts, drain, servers,
    view,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// One kind of damage.
#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Delete(Index, usize),
    /// Decoders trust lengths and tags: four bytes become a large number.
    Length(Index, u32),
    /// A part of another message.
    Splice(Index, usize, Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 1..16_usize).prop_map(|(at, count)| Edit::Delete(at, count)),
        (at(), prop_oneof![Just(u32::MAX), Just(0x7fff_ffff), 0..70_000_u32]).prop_map(|(at, n)| Edit::Length(at, n)),
        (at(), 0..30_usize, at(), 1..64_usize)
            .prop_map(|(at, other, from, count)| Edit::Splice(at, other, from, count)),
    ]
}

fn golden() -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test/vectors/wire/otp-29.json");
    let text = std::fs::read_to_string(path).expect("the vectors are in the repository");
    let file: serde_json::Value = serde_json::from_str(&text).expect("and are JSON");
    let hex = file["cases"].as_array().expect("a list").iter().filter_map(|case| case["hex"].as_str());
    let byte = |hex: &str, at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    hex.map(|hex| (0..hex.len()).step_by(2).map(|at| byte(hex, at)).collect()).collect()
}

fn apply(bytes: &mut Vec<u8>, edit: Edit, all: &[Vec<u8>]) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match edit {
        Edit::Set(at, byte) => bytes[at.index(length)] = byte,
        Edit::Insert(at, new) => {
            let at = at.index(length);
            bytes.splice(at..at, new);
        }
        Edit::Delete(at, count) => {
            let at = at.index(length);
            bytes.drain(at..length.min(at + count));
        }
        Edit::Length(at, number) => {
            let at = at.index(length);
            bytes.splice(at..length.min(at + 4), number.to_be_bytes());
        }
        Edit::Splice(at, other, from, count) => {
            let other = &all[other % all.len()];
            let from = from.index(other.len());
            let at = at.index(length);
            bytes.splice(at..at, other[from..other.len().min(from + count)].iter().copied());
        }
    }
}

fn open(modules: usize, count: usize) -> Message {
    let text = String::new;
    let drainer = etf::Pid::new("a@h", 1, 0, 1);
    let (modules, count) = (vec![text(); modules], u32::try_from(count).expect("fits"));
    let (supervisor, storage, config) = (text(), text(), Config::default());
    DrainOpen { id: ID, drainer, supervisor, storage, count, modules, config }.into()
}

const ID: DrainId = DrainId(1);

#[test]
fn a_message_with_one_element_above_a_bound_is_refused() {
    let server = ServerSpec { module: ModuleId(0), sticky: StickyId(0), priority: 0 };
    for above in [0, 1] {
        let part = |nodes| ViewPart { id: ID, part: 1, parts: 1, now_ms: 0, nodes };
        let messages: [Message; 6] = [
            Events { id: ID, events: vec![Event::Cancel; drain::MAX_EVENTS + above] }.into(),
            Orders { id: ID, actions: vec![Action::Finish; drain::MAX_ORDERS + above] }.into(),
            Servers { id: ID, first: 0, servers: vec![server; servers::PER_CHUNK + above] }.into(),
            part(vec![NodeView::default(); view::PER_PART + above]).into(),
            open(10_000 + above, 0),
            open(0, MAX_SERVERS + above),
        ];
        for message in messages {
            let read = Message::from_bytes(&message.to_bytes().expect("encodes"));
            assert_eq!(read.is_ok(), above == 0, "{}: {:?}", message.kind(), read.err());
        }
    }
}

#[test]
fn orders_and_problems_above_a_bound_are_split_or_cut_before_they_are_sent() {
    let orders: Vec<Orders> = Orders::split(ID, &vec![Action::Finish; drain::MAX_ORDERS + 1]).collect();
    assert_eq!(orders.iter().map(|orders| orders.actions.len()).collect::<Vec<_>>(), [drain::MAX_ORDERS, 1]);

    let reason = RefuseReason::Invalid { problems: vec!["p".to_owned(); 1_001] };
    let sent = Message::from(Refuse { id: None, reason }).to_bytes().expect("encodes");
    match Message::from_bytes(&sent) {
        Ok(Message::Refuse(Refuse { reason: RefuseReason::Invalid { problems }, .. })) => {
            assert_eq!(problems.len(), 1_000);
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_damaged_message_gets_an_answer(which in 0..100_usize, edits in vec(edit(), 1..6)) {
        let all = golden();
        let mut bytes = all[which % all.len()].clone();
        edits.into_iter().for_each(|edit| apply(&mut bytes, edit, &all));
        match Message::from_bytes(&bytes) {
            Ok(message) => {
                // An accepted message can be sent again, and takes no more memory than its bytes allow.
                let again = message.to_bytes().expect("encodes");
                prop_assert!(etf::Checked::whole(&again).is_ok());
                match message {
                    Message::Servers(chunk) => prop_assert!(chunk.servers.len() <= servers::PER_CHUNK),
                    Message::View(part) => {
                        let _whole_or_not = ViewParts::default().add(part);
                    }
                    _ => {}
                }
            }
            Err(error) => prop_assert!(error.to_string().len() < 512, "{error}"),
        }
        // The bytes are also read as a message of another protocol.
        let _either = etf::Checked::whole(&bytes).map(|term| term.decode());
    }
}
