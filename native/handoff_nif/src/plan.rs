//! The dry run, the eligibility rules alone, and the engine's reasons, defaults and ranges.

use handoff_core::eligibility::{self, Query};
use handoff_core::{Balance, ClusterView, Config, Ended, Idle, Reason, StickyPolicy, WaitsFor};
use rustler::types::atom;
use rustler::{Encoder, Env, NewBinary, NifMap, Term};

use crate::answers;
use crate::engine::{ServerTerm, server};
use crate::terms::{Question, Value};

#[derive(NifMap)]
#[rustler(encode)]
struct PlanAnswer<'a> {
    targets: Vec<String>,
    assignment: Term<'a>,
    balance: Value<Option<Balance>>,
}

#[rustler::nif(schedule = "DirtyCpu")]
fn plan<'a>(env: Env<'a>, config: Value<Config>, servers: Vec<ServerTerm>, view: Value<ClusterView>) -> Term<'a> {
    let servers: Vec<_> = servers.into_iter().map(server).collect();
    let plan = match handoff_core::plan(&config.0, &servers, view.0) {
        Ok(plan) => plan,
        Err(error) => return answers::refused(env, &error),
    };
    let mut assignment = NewBinary::new(env, plan.assignments.len() * 4);
    for (bytes, assigned) in assignment.as_mut_slice().chunks_exact_mut(4).zip(&plan.assignments) {
        // A validated view has at most 20,000 nodes, so an index always fits.
        let code = match assigned {
            Ok(node) => i32::try_from(node.0).unwrap_or(i32::MAX),
            Err(reason) => -i32::from(reason.code()),
        };
        bytes.copy_from_slice(&code.to_le_bytes());
    }
    let targets = plan.targets.iter().map(|name| name.to_string()).collect();
    let answer = PlanAnswer { targets, assignment: assignment.into(), balance: Value(plan.balance) };
    (atom::ok(), answer).encode(env)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn eligible(Value(view): Value<ClusterView>, Value(question): Value<Question>) -> Vec<String> {
    let query = Query {
        source: &question.source,
        module: question.module,
        sticky: &question.sticky,
        policy: StickyPolicy::Gated,
        max_age_ms: question.max_age_ms,
        future_skew_ms: question.future_skew_ms,
    };
    eligibility::eligible(&view, &query).into_iter().map(|index| view.nodes[index].name.clone()).collect()
}

#[rustler::nif]
fn reasons() -> Value<Vec<(Reason, u8)>> {
    Value(Reason::ALL.iter().map(|reason| (*reason, reason.code())).collect())
}

/// The words of a progress and of a report that are not reasons, by field.
#[derive(NifMap)]
#[rustler(encode)]
struct Words {
    idle: Value<Vec<Idle>>,
    ended: Value<Vec<Ended>>,
    waits_for: Value<Vec<WaitsFor>>,
}

#[rustler::nif]
fn words() -> Words {
    Words {
        idle: Value(Idle::ALL.to_vec()),
        ended: Value(Ended::ALL.to_vec()),
        waits_for: Value(WaitsFor::ALL.to_vec()),
    }
}

/// The defaults of a configuration, and the ranges of its numbers.
#[rustler::nif]
fn config() -> (Value<Config>, Vec<(String, u64, u64)>) {
    let config = Config::default();
    let ranges = config.numbers().map(|number| (number.name.to_owned(), number.low, number.high)).into();
    (Value(config), ranges)
}
