//! What Elixir gets: the engine's types encoded as maps and tuples. `DurableHandoff.Native` documents their shapes.
//!
//! Guarantee: reasons, endings and keys carry the engine's own names; nothing is renamed on the way.

use handoff_core::event::{Action, EngineError, Poll};
use handoff_core::quantiles::Summary;
use handoff_core::reason::Reason;
use handoff_core::report::{Progress, Report};
use rustler::types::atom;
use rustler::{Atom, Encoder, Env, NifMap, NifResult, Term};

mod atoms {
    rustler::atoms! { start, release, finish, infinity, busy, invalid, unexpected, finished, unknown }
}

/// `{:error, :busy}`: another process is using the engine right now.
pub fn busy(env: Env<'_>) -> Term<'_> {
    (atom::error(), atoms::busy()).encode(env)
}

/// `{:error, reason}` for what the engine refused.
pub fn refused<'a>(env: Env<'a>, error: &EngineError) -> Term<'a> {
    let reason = match error {
        EngineError::Invalid { problems } => (atoms::invalid(), problems).encode(env),
        EngineError::Unexpected { id } => (atoms::unexpected(), id.0).encode(env),
        EngineError::Finished => atoms::finished().encode(env),
        _ => atoms::unknown().encode(env),
    };
    (atom::error(), reason).encode(env)
}

/// `{:ok, actions, wake}`.
pub fn poll<'a>(env: Env<'a>, poll: &Poll) -> Term<'a> {
    let actions: Vec<Term<'a>> = poll.actions.iter().map(|action| self::action(env, action)).collect();
    let wake = poll.wake.map_or_else(|| atoms::infinity().encode(env), |at| at.0.encode(env));
    (atom::ok(), actions, wake).encode(env)
}

/// An action as a term.
pub fn action<'a>(env: Env<'a>, action: &Action) -> Term<'a> {
    match action {
        Action::Start { id, target, attempt, timeout } => {
            (atoms::start(), id.0, &**target, attempt, timeout.as_millis()).encode(env)
        }
        Action::Release { id } => (atoms::release(), id.0).encode(env),
        Action::Finish => atoms::finish().encode(env),
    }
}

/// A reason as an atom.
pub fn reason(env: Env<'_>, reason: Reason) -> NifResult<Atom> {
    Atom::from_str(env, reason.name())
}

/// `%{reason => count}`.
pub fn reasons<'a>(env: Env<'a>, counts: impl IntoIterator<Item = (Reason, u64)>) -> NifResult<Term<'a>> {
    let pairs = counts
        .into_iter()
        .map(|(reason, count)| Ok((self::reason(env, reason)?.encode(env), count.encode(env))))
        .collect::<NifResult<Vec<(Term<'a>, Term<'a>)>>>()?;
    Term::map_from_pairs(env, &pairs)
}

#[derive(NifMap)]
#[rustler(encode)]
struct ProgressAnswer {
    total: u64,
    pending: u64,
    in_flight: u64,
    displaced: u64,
    stopping: u64,
    moved: u64,
    left: u64,
    failures: u64,
    retried: u64,
    limit: u32,
    finished: bool,
}

/// Where a drain is now, as a map.
pub fn progress(env: Env<'_>, progress: Progress) -> Term<'_> {
    ProgressAnswer {
        total: progress.total,
        pending: progress.pending,
        in_flight: progress.in_flight,
        displaced: progress.displaced,
        stopping: progress.stopping,
        moved: progress.moved,
        left: progress.left,
        failures: progress.failures,
        retried: progress.retried,
        limit: progress.limit,
        finished: progress.finished,
    }
    .encode(env)
}

#[derive(NifMap)]
#[rustler(encode)]
struct GapAnswer {
    count: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

#[derive(NifMap)]
#[rustler(encode)]
struct ConcurrencyAnswer {
    last: u32,
    highest: u32,
}

#[derive(NifMap)]
#[rustler(encode)]
struct ReportAnswer<'a> {
    total: u64,
    moved: u64,
    left: Term<'a>,
    retried: u64,
    gap_us: GapAnswer,
    duration_us: u64,
    targets: Vec<(String, u64)>,
    concurrency: ConcurrencyAnswer,
    attempts: u64,
    failures: u64,
    ended: Option<Atom>,
}

/// The summary of a drain, as a map.
pub fn report<'a>(env: Env<'a>, report: &Report) -> NifResult<Term<'a>> {
    let Summary { count, p50, p90, p99, max } = report.gap;
    let answer = ReportAnswer {
        total: report.total,
        moved: report.moved,
        left: reasons(env, report.left.iter().map(|(reason, count)| (*reason, *count)))?,
        retried: report.retried,
        gap_us: GapAnswer { count, p50, p90, p99, max },
        duration_us: report.duration.0,
        targets: report.targets.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
        concurrency: ConcurrencyAnswer { last: report.last_limit, highest: report.highest_in_flight },
        attempts: report.attempts,
        failures: report.failures,
        ended: report.ended.map(|ended| Atom::from_str(env, ended.name())).transpose()?,
    };
    Ok(answer.encode(env))
}
