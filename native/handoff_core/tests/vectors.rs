//! The rules of this crate give the answers recorded from the real DurableServer, in the same order.

use std::collections::BTreeMap;

use handoff_core::eligibility::{Query, eligible};
use handoff_core::{Capacity, ClusterView, ModuleId, NodeView, Resources, Scope, StickyLevel, StickyPolicy, Usage};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    id: u32,
    module: String,
    nodes: Vec<Node>,
    sticky: Option<Vec<Level>>,
    local_node: String,
    eligible: Vec<String>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    age_ms: i64,
    capacity: Option<BTreeMap<String, Limit>>,
    resources: Option<BTreeMap<String, f64>>,
    env_vars: Option<BTreeMap<String, Option<String>>>,
    heartbeat_meta: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Limit {
    current: f64,
    limit: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Level {
    Env(String, Option<String>),
    Any(String),
}

const NOW_MS: i64 = 1_800_000_000_000;

#[test]
fn every_recorded_answer_of_durable_server_is_reproduced_in_order() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test/vectors/eligible.json");
    let text = std::fs::read_to_string(path).expect("the golden file is in the repository");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("its form is known");
    assert!(!cases.is_empty());
    for case in &cases {
        let view = ClusterView { now_ms: NOW_MS, nodes: case.nodes.iter().map(node).collect() };
        let sticky: Vec<StickyLevel> = case.sticky.iter().flatten().map(level).collect();
        let query = Query {
            source: &case.local_node,
            module: module(&case.module),
            sticky: &sticky,
            policy: StickyPolicy::Gated,
            max_age_ms: 50_000,
            future_skew_ms: 5_000,
        };
        let ours: Vec<&str> = eligible(&view, &query).into_iter().map(|index| &*view.nodes[index].name).collect();
        assert_eq!(ours, case.eligible, "case {}", case.id);
    }
}

/// Maps module names of the file to numbers.
fn module(name: &str) -> ModuleId {
    ModuleId(name.bytes().fold(7, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(byte.into())))
}

fn node(node: &Node) -> NodeView {
    let capacity = node.capacity.iter().flatten().map(|(scope, limit)| Capacity {
        scope: if scope == "total" { Scope::Total } else { Scope::Module(module(scope)) },
        current: limit.current,
        limit: limit.limit,
    });
    let number = |key: &str| node.resources.as_ref().and_then(|resources| resources.get(key)).copied();
    let meta = node.heartbeat_meta.as_ref();
    NodeView {
        name: node.name.clone(),
        stamp_ms: NOW_MS - node.age_ms,
        draining: meta.and_then(|meta| meta.get("draining")) == Some(&serde_json::Value::Bool(true)),
        connected: true,
        capacity: capacity.collect(),
        resources: Resources {
            cpu: Usage { used: number("cpu"), max: number("max_cpu") },
            memory: Usage { used: number("memory"), max: number("max_memory") },
            disk: Usage { used: number("disk"), max: number("max_disk") },
        },
        env: node.env_vars.iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect(),
        ..NodeView::default()
    }
}

fn level(level: &Level) -> StickyLevel {
    match level {
        Level::Env(name, value) => StickyLevel::Env { name: name.clone(), value: value.clone(), delay_ms: 0 },
        Level::Any(any) => {
            assert_eq!(any, "any");
            StickyLevel::Any { delay_ms: 0 }
        }
    }
}
