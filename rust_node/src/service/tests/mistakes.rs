//! Invalid messages, and limits.

use super::*;

#[test]
fn messages_for_an_unknown_drain_are_refused_even_if_another_node_has_that_number() {
    let mut service = service();
    start(&mut service, MS(0), "a@h", 10, &["c@h"]);
    let messages: [Message; 3] =
        [Keepalive { id: ID }.into(), finished(ServerId(0), 1, Outcome::Gone).into(), servers(0, 1).into()];
    for message in messages {
        let answers = tell(&mut service, MS(1), "b@h", message);
        assert_eq!(refusal(&answers), Some(&RefuseReason::UnknownDrain));
    }
    assert_eq!(service.drains(MS(1))[0].in_flight, 8, "the drain of that number on a@h is untouched");
    assert_eq!(tell(&mut service, MS(1), "b@h", DrainClose { id: ID }), [], "closing nothing is no mistake");
}

#[test]
fn opening_a_drain_twice_is_refused_and_the_first_goes_on() {
    let mut service = service();
    start(&mut service, MS(0), "a@h", 10, &["c@h"]);
    let answers = tell(&mut service, MS(1), "a@h", open("a@h", 10));
    assert_eq!(refusal(&answers), Some(&RefuseReason::Duplicate));
    assert_eq!(service.drains(MS(1)).len(), 1);
}

#[test]
fn messages_out_of_order_end_their_own_drain_with_a_reason() {
    let wrong: Vec<Vec<Message>> = vec![
        vec![servers(5, 5).into()],
        vec![servers(0, 5).into(), servers(0, 5).into()],
        vec![servers(0, 5).into(), DrainStart { id: ID, left_ms: 1_000 }.into()],
        vec![servers(0, 10).into(), DrainStart { id: ID, left_ms: 1_000 }.into()],
        vec![finished(ServerId(0), 1, Outcome::Gone).into()],
        vec![ViewPart { part: 2, parts: 3, ..view(&["c@h"]) }.into()],
    ];
    for messages in wrong {
        let mut service = service();
        start(&mut service, MS(0), "b@h", 10, &["c@h"]);
        tell(&mut service, MS(0), "a@h", open("a@h", 10));
        let described = format!("{messages:?}");
        let answers: Vec<Message> =
            messages.into_iter().flat_map(|message| tell(&mut service, MS(1), "a@h", message)).collect();
        assert!(matches!(refusal(&answers), Some(RefuseReason::OutOfOrder { .. })), "{described}: {answers:?}");
        let left = service.drains(MS(1));
        assert_eq!((left.len(), left[0].node.as_str(), left[0].in_flight), (1, "b@h", 8));
    }
}

#[test]
fn more_servers_than_announced_and_a_wrong_configuration_are_refused() {
    let mut service = service();
    tell(&mut service, MS(0), "a@h", open("a@h", 10));
    assert!(matches!(refusal(&tell(&mut service, MS(0), "a@h", servers(0, 11))), Some(RefuseReason::Full { .. })));
    let bad = DrainOpen { config: Config { max_attempts: 0, ..config("a@h") }, modules: vec![], ..open("a@h", 1) };
    match refusal(&tell(&mut service, MS(0), "a@h", bad)) {
        Some(RefuseReason::Invalid { problems }) => assert_eq!(problems.len(), 2, "{problems:?}"),
        other => panic!("{other:?}"),
    }
    let stranger = DrainOpen { drainer: drainer("b@h"), ..open("a@h", 1) };
    service.receive(MS(0), &name("a@h"), None, stranger.into());
    assert_eq!(service.drains(MS(0)).len(), 0, "orders would go to another node");
}

#[test]
fn duplicate_and_invented_outcomes_change_nothing() {
    let mut service = service();
    let first = starts(&start(&mut service, MS(0), "a@h", 100, &["c@h"]));
    let (id, attempt, _) = first[0].clone();
    let moved = |attempt| finished(id, attempt, Outcome::Moved { node: None });
    assert_eq!(starts(&tell(&mut service, MS(1), "a@h", moved(attempt))).len(), 1, "one permit is free");
    for again in [moved(attempt), moved(attempt + 1), finished(ServerId(4_000_000), 1, Outcome::Gone)] {
        assert_eq!(starts(&tell(&mut service, MS(2), "a@h", again)).len(), 0);
    }
    let info = &service.drains(MS(2))[0];
    assert_eq!((info.moved, info.in_flight), (1, 8));
}

#[test]
fn more_drains_than_the_limit_are_refused_and_room_is_made_again() {
    let limits = ServiceLimits { drains: 2, ..ServiceLimits::default() };
    let mut service = Service::new(limits, Metrics::default());
    for peer in ["a@h", "b@h"] {
        tell(&mut service, MS(0), peer, open(peer, 1));
    }
    assert!(matches!(refusal(&tell(&mut service, MS(0), "c@h", open("c@h", 1))), Some(RefuseReason::Full { .. })));
    service.peer_down(MS(1), "a@h");
    assert_eq!(refusal(&tell(&mut service, MS(1), "c@h", open("c@h", 1))), None);
}

#[test]
fn a_drain_above_the_limit_of_its_node_or_of_all_servers_is_refused() {
    let limits = ServiceLimits { drains_per_node: 1, servers: 10, ..ServiceLimits::default() };
    let mut service = Service::new(limits, Metrics::default());
    let mut full = |peer, open| match refusal(&tell(&mut service, MS(0), peer, open)) {
        Some(RefuseReason::Full { what, .. }) => Some(what.clone()),
        other => other.map(|other| panic!("{other:?}")),
    };
    assert_eq!(full("a@h", open("a@h", 9)), None);
    let second = DrainOpen { id: DrainId(ID.0 + 1), ..open("a@h", 1) };
    assert_eq!(full("a@h", second).as_deref(), Some("drains of a node"));
    assert_eq!(full("b@h", open("b@h", 2)).as_deref(), Some("servers of all drains"));
    assert_eq!(full("b@h", open("b@h", 1)), None);
}

#[test]
fn endless_new_storages_and_modules_do_not_fill_the_memory() {
    let limits = ServiceLimits { drains: 3, names: 100, ..ServiceLimits::default() };
    let mut service = Service::new(limits, Metrics::default());
    start(&mut service, MS(0), "b@h", 10, &["c@h"]);
    let mut open_and_close = |open| {
        let answers = tell(&mut service, MS(1), "a@h", open);
        tell(&mut service, MS(1), "a@h", DrainClose { id: ID });
        (refusal(&answers).cloned(), service.storages.len(), service.storages.contains_key("store"))
    };
    for round in 0..10 {
        let other = DrainOpen { storage: format!("s{round}"), ..open("a@h", 1) };
        let (refused, storages, is_first_kept) = open_and_close(other);
        assert!(refused.is_none() && storages <= 3 && is_first_kept, "{refused:?}, {storages}");
    }
    let refused =
        (0..200).find_map(|round| open_and_close(DrainOpen { modules: vec![format!("M{round}")], ..open("a@h", 1) }).0);
    assert!(matches!(refused, Some(RefuseReason::Full { limit: 100, .. })), "{refused:?}");
}

#[test]
fn endless_new_node_names_do_not_fill_the_memory() {
    let limits = ServiceLimits { names: 100, ..ServiceLimits::default() };
    let mut service = Service::new(limits, Metrics::default());
    start(&mut service, MS(0), "a@h", 10, &["c@h"]);
    let mut refused = None;
    for round in 0..200 {
        let target = format!("n{round}@h");
        refused = refused.or(refusal(&tell(&mut service, MS(1), "a@h", view(&[&target]))).cloned());
    }
    assert!(matches!(refused, Some(RefuseReason::Full { limit: 100, .. })), "{refused:?}");
}

#[test]
fn a_drain_with_endless_node_names_ends_no_other_drain() {
    let limits = ServiceLimits { names: 100, ..ServiceLimits::default() };
    let mut service = Service::new(limits, Metrics::default());
    for peer in ["a@h", "b@h"] {
        start(&mut service, MS(0), peer, 10, &["c@h"]);
    }
    let names: Vec<String> = (0..200).map(|number| format!("n{number}@h")).collect();
    let endless: Vec<&str> = names.iter().map(String::as_str).collect();
    let refused = tell(&mut service, MS(1), "a@h", view(&endless));
    assert!(matches!(refusal(&refused), Some(RefuseReason::Full { limit: 100, .. })), "{refused:?}");
    assert_eq!(refusal(&tell(&mut service, MS(2), "b@h", view(&["c@h"]))), None);
    assert_eq!(service.drains(MS(2)).iter().map(|drain| &*drain.node).collect::<Vec<_>>(), ["b@h"]);
}
