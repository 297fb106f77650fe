//! Every message is unchanged after encoding and decoding, and arbitrary bytes give a result.

use etf::{Atom, Pid};
use handoff_core::config::{Prefer, StickyLevel, StickyPolicy};
use handoff_core::event::{Blame, Event, Outcome};
use handoff_core::limiter::Concurrency;
use handoff_core::time::Micros;
use handoff_core::{
    Action, Capacity, Config, ModuleId, NodeView, Resources, Scope, ServerId, ServerSpec, Source, StickyId, Usage,
};
use handoff_wire::{DrainId, DrainOpen, Events, Message, Orders, Servers, ViewPart};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    "[a-zé@ ]{0,12}"
}

fn finite() -> impl Strategy<Value = f64> {
    -1e12..1e12
}

fn level() -> impl Strategy<Value = StickyLevel> {
    prop_oneof![
        (name(), option::of(name()), any::<u64>()).prop_map(|(name, value, delay_ms)| StickyLevel::Env {
            name,
            value,
            delay_ms
        }),
        any::<u64>().prop_map(|delay_ms| StickyLevel::Any { delay_ms }),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    (name(), any::<Option<i64>>(), option::of(name()), option::of(name()))
        .prop_map(|(name, started_at_ms, generation, region)| Source { name, started_at_ms, generation, region })
}

fn config() -> impl Strategy<Value = Config> {
    let numbers = (any::<[u32; 4]>(), any::<[u64; 3]>(), any::<[i64; 2]>(), any::<Option<u32>>(), finite());
    let choices = (
        prop_oneof![Just(Concurrency::Adaptive), Just(Concurrency::Fixed)],
        prop_oneof![Just(StickyPolicy::Gated), Just(StickyPolicy::AnyLevel), Just(StickyPolicy::Ignore)],
        prop_oneof![Just(Prefer::NewRelease), Just(Prefer::None)],
    );
    (numbers, choices, source(), vec(vec(level(), 0..4), 0..4)).prop_map(
        |((small, times, ages, cap, ratio), (concurrency, sticky, prefer), source, stickies)| Config {
            max_concurrency: small[0],
            concurrency,
            max_concurrency_per_target: cap,
            timeout_ms: times[0],
            attempt_timeout_ms: times[1],
            max_attempts: small[1],
            max_consecutive_failures: small[2],
            max_failure_ratio: ratio,
            wait_for_target_ms: times[2],
            sticky,
            prefer,
            source,
            stickies,
            modules: small[3],
            max_age_ms: ages[0],
            future_skew_ms: ages[1],
            // New fields need no line here.
            ..Config::default()
        },
    )
}

fn node() -> impl Strategy<Value = NodeView> {
    let scope = prop_oneof![Just(Scope::Total), any::<u32>().prop_map(|index| Scope::Module(ModuleId(index)))];
    let capacity = (scope, finite(), finite()).prop_map(|(scope, current, limit)| Capacity { scope, current, limit });
    let usage = || (option::of(finite()), option::of(finite())).prop_map(|(used, max)| Usage { used, max });
    let resources = (usage(), usage(), usage()).prop_map(|(cpu, memory, disk)| Resources { cpu, memory, disk });
    let texts = (name(), option::of(name()), option::of(name()));
    let numbers = (any::<i64>(), any::<[Option<i64>; 2]>(), any::<Option<u64>>(), any::<[bool; 2]>());
    let missing = vec(any::<u32>().prop_map(ModuleId), 0..4);
    (texts, numbers, vec(capacity, 0..4), resources, vec((name(), name()), 0..4), missing).prop_map(
        |(
            (name, generation, region),
            (stamp_ms, [counted_at_ms, started_at_ms], servers, flags),
            capacity,
            resources,
            env,
            missing,
        )| NodeView {
            name,
            stamp_ms,
            counted_at_ms,
            started_at_ms,
            generation,
            servers,
            region,
            draining: flags[0],
            connected: flags[1],
            capacity,
            resources,
            env,
            missing,
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let blame = || prop_oneof![Just(Blame::Target), Just(Blame::Server), Just(Blame::Store), Just(Blame::Unknown)];
    prop_oneof![
        option::of(name()).prop_map(|node| Outcome::Moved { node }),
        blame().prop_map(Outcome::Displaced),
        Just(Outcome::RetrySame),
        Just(Outcome::Stopping),
        blame().prop_map(Outcome::Untouched),
        Just(Outcome::NotStored),
        Just(Outcome::StopFailed),
        Just(Outcome::NotStorable),
        Just(Outcome::Gone),
        Just(Outcome::LostRace),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let id = || any::<u32>().prop_map(ServerId);
    prop_oneof![
        (id(), any::<u32>(), outcome(), any::<u64>()).prop_map(|(id, attempt, outcome, latency)| Event::Finished {
            id,
            attempt,
            outcome,
            latency: Micros(latency)
        }),
        id().prop_map(|id| Event::Stopped { id }),
        id().prop_map(|id| Event::Released { id }),
        name().prop_map(Event::NodeDown),
        Just(Event::Cancel),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let id = || any::<u32>().prop_map(ServerId);
    prop_oneof![
        (id(), name(), any::<u32>(), any::<u32>()).prop_map(|(id, target, attempt, timeout_ms)| Action::Start {
            id,
            target: target.into(),
            attempt,
            timeout: Micros::from_millis(timeout_ms.into())
        }),
        id().prop_map(|id| Action::Release { id }),
        Just(Action::Finish),
    ]
}

fn server() -> impl Strategy<Value = ServerSpec> {
    any::<(u32, u32, i32)>().prop_map(|(module, sticky, priority)| ServerSpec {
        module: ModuleId(module),
        sticky: StickyId(sticky),
        priority,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let id = || any::<u64>().prop_map(DrainId);
    let pid = (name(), any::<[u32; 3]>()).prop_map(|(node, [pid, serial, creation])| Pid {
        node: Atom::from(node),
        id: pid,
        serial,
        creation,
    });
    prop_oneof![
        (id(), pid, name(), name(), 0..10_000_000_u32, vec(name(), 0..4), config()).prop_map(
            |(id, drainer, supervisor, storage, count, modules, config)| {
                DrainOpen { id, drainer, supervisor, storage, count, modules, config }.into()
            }
        ),
        (id(), any::<u32>(), vec(server(), 0..50))
            .prop_map(|(id, first, servers)| Servers { id, first, servers }.into()),
        (id(), any::<u32>(), any::<u32>(), any::<i64>(), vec(node(), 0..4))
            .prop_map(|(id, part, parts, now_ms, nodes)| ViewPart { id, part, parts, now_ms, nodes }.into()),
        (id(), vec(event(), 0..20)).prop_map(|(id, events)| Events { id, events }.into()),
        (id(), vec(action(), 0..20)).prop_map(|(id, actions)| Orders { id, actions }.into()),
    ]
}

proptest! {
    #[test]
    fn any_message_survives_encoding(message in message()) {
        let bytes = message.to_bytes().expect("encodes");
        prop_assert_eq!(Message::from_bytes(&bytes).expect("reads back"), message);
    }
}
