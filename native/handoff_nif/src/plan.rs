//! The dry run, the existing rules alone, and the list of reasons.

use handoff_core::eligibility::{self, Query};
use handoff_core::{Reason, StickyPolicy};
use rustler::types::atom;
use rustler::{Atom, Encoder, Env, NewBinary, NifMap, NifResult, Term};

use crate::answers;
use crate::terms::{ConfigTerm, OwnedQuery, QueryTerm, ServerTerm, ViewTerm, server};

#[derive(NifMap)]
#[rustler(encode)]
struct PlanAnswer<'a> {
    targets: Vec<String>,
    assignment: Term<'a>,
    reasons: Term<'a>,
    per_target: Vec<(String, u64)>,
}

#[rustler::nif(schedule = "DirtyCpu")]
fn plan<'a>(env: Env<'a>, config: ConfigTerm<'a>, servers: Vec<ServerTerm>, view: ViewTerm<'a>) -> NifResult<Term<'a>> {
    let config = config.into_config()?;
    let servers: Vec<_> = servers.into_iter().map(server).collect();
    let plan = match handoff_core::plan(&config, &servers, view.into_view()?) {
        Ok(plan) => plan,
        Err(error) => return Ok(answers::refused(env, &error)),
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
    let targets: Vec<String> = plan.targets.iter().map(|name| name.to_string()).collect();
    let per_target =
        targets.iter().cloned().zip(plan.per_target.iter().copied()).filter(|(_, count)| *count > 0).collect();
    let answer = PlanAnswer {
        targets,
        assignment: assignment.into(),
        reasons: answers::reasons(env, plan.reasons.iter().map(|(reason, count)| (*reason, *count)))?,
        per_target,
    };
    Ok((atom::ok(), answer).encode(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn eligible<'a>(view: ViewTerm<'a>, query: QueryTerm) -> NifResult<Vec<String>> {
    let view = view.into_view()?;
    let owned = OwnedQuery::from(query);
    let query = Query {
        source: &owned.source,
        module: owned.module,
        sticky: &owned.sticky,
        policy: StickyPolicy::Gated,
        max_age_ms: owned.max_age_ms,
        future_skew_ms: owned.future_skew_ms,
    };
    Ok(eligibility::eligible(&view, &query).into_iter().map(|index| view.nodes[index].name.clone()).collect())
}

#[rustler::nif]
fn reasons(env: Env<'_>) -> NifResult<Vec<(Atom, u8)>> {
    Reason::ALL.iter().map(|reason| Ok((answers::reason(env, *reason)?, reason.code()))).collect()
}
