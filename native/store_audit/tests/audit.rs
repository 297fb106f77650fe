//! The audit over objects recorded from DurableServer's own backend (`test/vectors/envelope.json`).

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use state_store::{Condition, Limits, Readback, Settings, Store, Write};
use store_audit::findings::{Gone, Report};
use store_audit::{Progress, audit};

const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), retries: 0 };
/// When the recorded reservations expire.
const TTL: i64 = 1_795_368_224_424;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../test/vectors/envelope.json")).unwrap()
}

async fn put(store: &Store, key: &str, body: Vec<u8>) {
    let write = Write { condition: Condition::Always, readback: Readback::AfterLostAnswer, keep: false };
    store.put(key, body.into(), &write, LIMITS).await.unwrap();
}

async fn recorded() -> Store {
    let store = Store::open("memory:", &Settings::default()).unwrap();
    for object in vectors()["objects"].as_array().unwrap() {
        let body = STANDARD.decode(object["object_base64"].as_str().unwrap()).unwrap();
        put(&store, &format!("x/{}", object["name"].as_str().unwrap()), body).await;
    }
    store
}

fn heartbeat(at: i64, node_ref: i64) -> Vec<u8> {
    json!({"node": "app@vm", "node_ref": node_ref, "last_heartbeat_at": at}).to_string().into_bytes()
}

async fn run(store: &Store, now: i64) -> Report {
    audit(store, "x/", now, |_progress| {}).await.unwrap()
}

#[tokio::test]
async fn every_recorded_object_is_read_and_counted_by_status_and_owner() {
    let report = run(&recorded().await, TTL).await;
    assert_eq!(report.unreadable.count, 0, "{:?}", report.unreadable);
    assert_eq!(report.servers, 30);
    assert_eq!(report.by_status["running"], 9);
    assert_eq!(report.by_status["stopped_graceful"], 6);
    assert_eq!(report.by_status["permanently_crashed"], 3);
    assert_eq!(report.by_owner["app@vm"].values().sum::<u64>(), 30);
}

#[tokio::test]
async fn meta_of_a_vm_before_otp_26_is_read_too() {
    let store = Store::open("memory:", &Settings::default()).unwrap();
    // #{status => running, node_str => <<"app@vm">>}, its atoms in Latin-1.
    let mut meta = vec![131, 116, 0, 0, 0, 2];
    for (name, value) in [
        ("status", [&[100, 0, 7][..], b"running"].concat()),
        ("node_str", [&[109, 0, 0, 0, 6][..], b"app@vm"].concat()),
    ] {
        meta.extend([100, 0, u8::try_from(name.len()).unwrap()]);
        meta.extend(name.as_bytes());
        meta.extend(value);
    }
    let object = json!({"vsn": 1, "state": {}, "meta": STANDARD.encode(meta)});
    put(&store, "x/old", object.to_string().into_bytes()).await;
    let report = run(&store, TTL).await;
    assert_eq!((report.unreadable.count, report.by_owner["app@vm"]["running"]), (0, 1));
}

#[tokio::test]
async fn a_reservation_is_a_finding_once_it_has_expired() {
    let store = recorded().await;
    assert_eq!(run(&store, TTL).await.outlived_reservations.count, 0);
    let found = run(&store, TTL + 1_000).await.outlived_reservations;
    assert_eq!((found.count, found.first[0].key.as_str()), (3, "x/reserved/escapes"));
    assert_eq!((found.first[0].node.as_str(), found.first[0].outlived_ms), ("app@vm", 1_000));
}

#[tokio::test]
async fn running_servers_of_a_silent_stale_or_restarted_node_are_orphans() {
    let store = recorded().await;
    let found = run(&store, TTL).await.orphans;
    assert_eq!((found.count, found.first[0].why), (9, Gone::NoHeartbeat));

    put(&store, "x/__nodes/app@vm", heartbeat(TTL - 50_001, 0)).await;
    assert_eq!(run(&store, TTL).await.orphans.first[0].why, Gone::StaleHeartbeat(50_001));

    put(&store, "x/__nodes/app@vm", heartbeat(TTL - 50_000, 0)).await;
    let report = run(&store, TTL).await;
    assert_eq!(report.orphans.count, 0);
    assert!(report.is_clean() && report.nodes[0].fresh);

    put(&store, "x/__nodes/app@vm", heartbeat(TTL, i64::MAX)).await;
    let found = run(&store, TTL).await.orphans;
    assert_eq!((found.count, found.first[0].why), (9, Gone::Restarted));
    assert_eq!(found.first.iter().filter(|orphan| !orphan.permanent).count(), 3);
}

/// A server that is recorded as running on that node.
fn owned(node: &str) -> Vec<u8> {
    let mut meta = vec![131, 116, 0, 0, 0, 2];
    for (name, value) in [("status", "running"), ("node_str", node)] {
        for text in [name, value] {
            meta.extend([119, u8::try_from(text.len()).unwrap()]);
            meta.extend(text.as_bytes());
        }
    }
    json!({"vsn": 1, "state": {}, "meta": STANDARD.encode(meta)}).to_string().into_bytes()
}

/// A store in memory waits for nothing.
fn at_once<T>(request: impl Future<Output = T>) -> T {
    match pin!(request).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a store in memory waits"),
    }
}

/// As in a rolling deploy: an audit of many servers takes minutes.
#[tokio::test]
async fn a_node_that_starts_and_a_server_that_leaves_a_node_during_the_audit_are_no_findings() {
    let store = Store::open("memory:", &Settings::default()).unwrap();
    put(&store, "x/__nodes/stays@vm", heartbeat(TTL, 0)).await;
    put(&store, "x/on_a_new_node", owned("new@vm")).await;
    put(&store, "x/on_an_old_node", owned("old@vm")).await;
    put(&store, "x/lost", owned("lost@vm")).await;
    let deployed = |progress: Progress| {
        if progress.read == 4 && !progress.complete {
            at_once(put(&store, "x/__nodes/new@vm", heartbeat(TTL, 0)));
            at_once(put(&store, "x/on_an_old_node", owned("stays@vm")));
        }
    };
    let report = audit(&store, "x/", TTL, deployed).await.unwrap();
    let orphans: Vec<_> = report.orphans.first.iter().map(|orphan| orphan.key.as_str()).collect();
    assert_eq!((orphans, report.servers), (vec!["x/lost"], 3));
    let owners: Vec<_> = report.by_owner.keys().map(String::as_str).collect();
    assert_eq!(owners, ["lost@vm", "new@vm", "stays@vm"]);
}

#[tokio::test]
async fn unreadable_objects_are_listed_with_the_reason_and_do_not_end_the_audit() {
    let store = recorded().await;
    let bomb = [131, 80, 255, 255, 255, 255];
    let claims = [131, 108, 255, 255, 255, 255];
    let meta = |bytes: &[u8]| json!({"vsn": 1, "state": {}, "meta": STANDARD.encode(bytes)}).to_string().into_bytes();
    let bad: [(&str, Vec<u8>, &str); 7] = [
        ("empty", vec![], "empty"),
        ("text", b"not json".to_vec(), "JSON"),
        ("list", b"[]".to_vec(), "JSON"),
        ("base64", br#"{"vsn":1,"state":{},"meta":"?"}"#.to_vec(), "Base64"),
        ("compressed", meta(&bomb), "term"),
        ("claims", meta(&claims), "term"),
        ("number", meta(&[131, 97, 1]), "map"),
    ];
    for (name, body, _why) in &bad {
        put(&store, &format!("x/{name}"), body.clone()).await;
    }
    put(&store, "x/__nodes/other@vm", b"{}".to_vec()).await;
    let report = run(&store, TTL).await;
    assert_eq!((report.servers, report.unreadable.count), (30, 8));
    for (name, _body, why) in &bad {
        let found = report.unreadable.first.iter().find(|found| found.key == format!("x/{name}")).unwrap();
        assert!(found.why.contains(why), "{name}: {}", found.why);
    }
}

#[tokio::test]
async fn an_audit_writes_nothing_and_its_last_progress_is_complete() {
    let store = recorded().await;
    let listing = store.list("", None, 100, LIMITS).await.unwrap();
    let mut steps = Vec::new();
    audit(&store, "x/", TTL, |progress| steps.push(progress)).await.unwrap();
    assert_eq!(steps.pop(), Some(Progress { listed: 30, read: 30, complete: true }));
    assert!(steps.iter().map(|step| step.read).eq(1..=30) && steps.iter().all(|step| !step.complete), "{steps:?}");
    assert_eq!(store.list("", None, 100, LIMITS).await.unwrap(), listing);
}

#[tokio::test]
async fn the_table_lists_the_findings_and_json_has_all_of_them() {
    let report = run(&recorded().await, TTL + 1_000).await;
    let text = report.to_string();
    for line in ["30 servers", "3: reservations that outlived", "9: running on a node", "no heartbeat", "0: unreadable"]
    {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["orphans"]["first"][0]["why"]["reason"], "no_heartbeat");
}
