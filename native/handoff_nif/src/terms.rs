//! What Elixir sends: maps and tuples decoded into the engine's types. `DurableHandoff.Native` documents their shapes.
//!
//! Guarantee: numbers arrive as integers or floats alike; a key that is missing or of another type is a `badarg`.

use handoff_core::config::{Prefer, StickyLevel, StickyPolicy};
use handoff_core::event::{Action, Blame, Event, Outcome};
use handoff_core::limiter::Concurrency;
use handoff_core::time::Micros;
use handoff_core::{
    Capacity, ClusterView, Config, ModuleId, NodeView, Resources, Scope, ServerId, ServerSpec, Source, StickyId, Usage,
};
use rustler::{Atom, Decoder, Error, NifMap, NifResult, NifTaggedEnum, NifUnitEnum, NifUntaggedEnum, Term};

mod atoms {
    rustler::atoms! { total, cpu, max_cpu, memory, max_memory, disk, max_disk }
}

/// An integer or a float.
#[derive(Clone, Copy)]
struct Number(f64);

impl<'a> Decoder<'a> for Number {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        #[expect(clippy::cast_precision_loss, reason = "loads and limits, not identities")]
        term.decode::<f64>().or_else(|_| term.decode::<i64>().map(|integer| integer as f64)).map(Number)
    }
}

#[derive(NifUnitEnum)]
#[rustler(decode)]
enum ConcurrencyTerm {
    Adaptive,
    Fixed,
}

#[derive(NifUnitEnum)]
#[rustler(decode)]
enum StickyPolicyTerm {
    Gated,
    AnyLevel,
    Ignore,
}

#[derive(NifUnitEnum)]
#[rustler(decode)]
enum PreferTerm {
    NewRelease,
    None,
}

#[derive(NifTaggedEnum)]
#[rustler(decode)]
enum StickyLevelTerm {
    Env(String, Option<String>, u64),
    Any(u64),
}

#[derive(NifMap)]
#[rustler(decode)]
struct SourceTerm {
    name: String,
    started_at_ms: Option<i64>,
    generation: Option<String>,
    region: Option<String>,
}

/// The configuration of a drain.
#[derive(NifMap)]
#[rustler(decode)]
pub struct ConfigTerm<'a> {
    max_concurrency: u32,
    concurrency: ConcurrencyTerm,
    max_concurrency_per_target: Option<u32>,
    timeout_ms: u64,
    attempt_timeout_ms: u64,
    max_attempts: u32,
    max_consecutive_failures: u32,
    max_failure_ratio: Term<'a>,
    wait_for_target_ms: u64,
    wait_for_lost_ms: u64,
    sticky: StickyPolicyTerm,
    prefer: PreferTerm,
    source: SourceTerm,
    stickies: Vec<Vec<StickyLevelTerm>>,
    modules: u32,
    future_skew_ms: i64,
    max_age_ms: i64,
}

impl ConfigTerm<'_> {
    /// As the engine takes it; it checks the values itself.
    pub fn into_config(self) -> NifResult<Config> {
        Ok(Config {
            max_concurrency: self.max_concurrency,
            concurrency: match self.concurrency {
                ConcurrencyTerm::Adaptive => Concurrency::Adaptive,
                ConcurrencyTerm::Fixed => Concurrency::Fixed,
            },
            max_concurrency_per_target: self.max_concurrency_per_target,
            timeout_ms: self.timeout_ms,
            attempt_timeout_ms: self.attempt_timeout_ms,
            max_attempts: self.max_attempts,
            max_consecutive_failures: self.max_consecutive_failures,
            max_failure_ratio: self.max_failure_ratio.decode::<Number>()?.0,
            wait_for_target_ms: self.wait_for_target_ms,
            wait_for_lost_ms: self.wait_for_lost_ms,
            sticky: sticky_policy(&self.sticky),
            prefer: match self.prefer {
                PreferTerm::NewRelease => Prefer::NewRelease,
                PreferTerm::None => Prefer::None,
            },
            source: Source {
                name: self.source.name,
                started_at_ms: self.source.started_at_ms,
                generation: self.source.generation,
                region: self.source.region,
            },
            stickies: self.stickies.into_iter().map(signature).collect(),
            modules: self.modules,
            max_age_ms: self.max_age_ms,
            future_skew_ms: self.future_skew_ms,
        })
    }
}

/// One server: module, sticky signature, priority.
pub type ServerTerm = (u32, u32, i32);

/// A server as the engine takes it.
pub fn server((module, sticky, priority): ServerTerm) -> ServerSpec {
    ServerSpec { module: ModuleId(module), sticky: StickyId(sticky), priority }
}

#[derive(NifMap)]
#[rustler(decode)]
struct NodeTerm<'a> {
    name: String,
    stamp_ms: i64,
    counted_at_ms: Option<i64>,
    started_at_ms: Option<i64>,
    generation: Option<String>,
    servers: Option<u64>,
    region: Option<String>,
    draining: bool,
    connected: bool,
    capacity: Vec<(Term<'a>, Number, Number)>,
    resources: Option<Term<'a>>,
    env: Vec<(String, String)>,
    missing: Vec<u32>,
}

/// The cluster at one moment.
#[derive(NifMap)]
#[rustler(decode)]
pub struct ViewTerm<'a> {
    now_ms: i64,
    nodes: Vec<NodeTerm<'a>>,
}

impl ViewTerm<'_> {
    /// As the engine takes it; it checks the values itself.
    pub fn into_view(self) -> NifResult<ClusterView> {
        let nodes = self.nodes.into_iter().map(node).collect::<NifResult<_>>()?;
        Ok(ClusterView { now_ms: self.now_ms, nodes })
    }
}

/// Whose eligibility is asked for, by the existing rules alone.
#[derive(NifMap)]
#[rustler(decode)]
pub struct QueryTerm {
    source: String,
    module: u32,
    sticky: Vec<StickyLevelTerm>,
    max_age_ms: i64,
    future_skew_ms: i64,
}

/// A [`QueryTerm`] with its levels converted, so that a borrowed query can be made of it.
pub struct OwnedQuery {
    /// The node that asks.
    pub source: String,
    /// The server's module.
    pub module: ModuleId,
    /// Its sticky signature.
    pub sticky: Vec<StickyLevel>,
    /// Rule 2's age limit.
    pub max_age_ms: i64,
    /// Rule 2's tolerance.
    pub future_skew_ms: i64,
}

impl From<QueryTerm> for OwnedQuery {
    fn from(term: QueryTerm) -> Self {
        OwnedQuery {
            source: term.source,
            module: ModuleId(term.module),
            sticky: signature(term.sticky),
            max_age_ms: term.max_age_ms,
            future_skew_ms: term.future_skew_ms,
        }
    }
}

#[derive(NifUnitEnum)]
#[rustler(decode)]
pub enum BlameTerm {
    Target,
    Server,
    Store,
    Unknown,
}

/// An outcome. `:untouched` alone is `{:untouched, :unknown}`.
#[derive(NifUntaggedEnum)]
#[rustler(decode)]
pub enum AnyOutcomeTerm {
    Named(OutcomeTerm),
    Unblamed(UnblamedTerm),
}

#[derive(NifUnitEnum)]
#[rustler(decode)]
pub enum UnblamedTerm {
    Untouched,
}

#[derive(NifTaggedEnum)]
#[rustler(decode)]
pub enum OutcomeTerm {
    Moved(Option<String>),
    RetrySame,
    Stopping,
    Displaced(BlameTerm),
    Untouched(BlameTerm),
    Gone,
    LostRace,
    NotStored,
    NotStorable,
}

/// An event, but for the view, which comes on its own (dirty) way.
#[derive(NifTaggedEnum)]
#[rustler(decode)]
pub enum EventTerm {
    /// `{:finished, id, attempt, outcome, latency_us}`
    Finished(u32, u32, AnyOutcomeTerm, u64),
    /// `{:stopped, id}`
    Stopped(u32),
    /// `{:released, id}`
    Released(u32),
    /// `{:node_down, name}`
    NodeDown(String),
    /// `:cancel`
    Cancel,
}

impl From<EventTerm> for Event {
    fn from(term: EventTerm) -> Self {
        match term {
            EventTerm::Finished(id, attempt, outcome, latency) => {
                Event::Finished { id: ServerId(id), attempt, outcome: outcome.into(), latency: Micros(latency) }
            }
            EventTerm::Stopped(id) => Event::Stopped { id: ServerId(id) },
            EventTerm::Released(id) => Event::Released { id: ServerId(id) },
            EventTerm::NodeDown(name) => Event::NodeDown(name),
            EventTerm::Cancel => Event::Cancel,
        }
    }
}

impl From<AnyOutcomeTerm> for Outcome {
    fn from(term: AnyOutcomeTerm) -> Self {
        match term {
            AnyOutcomeTerm::Named(outcome) => outcome.into(),
            AnyOutcomeTerm::Unblamed(UnblamedTerm::Untouched) => Outcome::Untouched(Blame::Unknown),
        }
    }
}

impl From<OutcomeTerm> for Outcome {
    fn from(term: OutcomeTerm) -> Self {
        match term {
            OutcomeTerm::Moved(node) => Outcome::Moved { node },
            OutcomeTerm::RetrySame => Outcome::RetrySame,
            OutcomeTerm::Stopping => Outcome::Stopping,
            OutcomeTerm::Displaced(blame) => Outcome::Displaced(blame.into()),
            OutcomeTerm::Untouched(blame) => Outcome::Untouched(blame.into()),
            OutcomeTerm::Gone => Outcome::Gone,
            OutcomeTerm::LostRace => Outcome::LostRace,
            OutcomeTerm::NotStored => Outcome::NotStored,
            OutcomeTerm::NotStorable => Outcome::NotStorable,
        }
    }
}

impl From<BlameTerm> for Blame {
    fn from(term: BlameTerm) -> Self {
        match term {
            BlameTerm::Target => Blame::Target,
            BlameTerm::Server => Blame::Server,
            BlameTerm::Store => Blame::Store,
            BlameTerm::Unknown => Blame::Unknown,
        }
    }
}

/// An action of another engine.
#[derive(NifTaggedEnum)]
#[rustler(decode)]
pub enum ActionTerm {
    /// `{:start, id, target, attempt, timeout_ms}`
    Start(u32, String, u32, u64),
    /// `{:release, id}`
    Release(u32),
    /// `:finish`
    Finish,
}

impl From<ActionTerm> for Action {
    fn from(term: ActionTerm) -> Self {
        match term {
            ActionTerm::Start(id, target, attempt, timeout_ms) => Action::Start {
                id: ServerId(id),
                target: target.into(),
                attempt,
                timeout: Micros::from_millis(timeout_ms),
            },
            ActionTerm::Release(id) => Action::Release { id: ServerId(id) },
            ActionTerm::Finish => Action::Finish,
        }
    }
}

fn sticky_policy(term: &StickyPolicyTerm) -> StickyPolicy {
    match term {
        StickyPolicyTerm::Gated => StickyPolicy::Gated,
        StickyPolicyTerm::AnyLevel => StickyPolicy::AnyLevel,
        StickyPolicyTerm::Ignore => StickyPolicy::Ignore,
    }
}

fn signature(levels: Vec<StickyLevelTerm>) -> Vec<StickyLevel> {
    levels
        .into_iter()
        .map(|level| match level {
            StickyLevelTerm::Env(name, value, delay_ms) => StickyLevel::Env { name, value, delay_ms },
            StickyLevelTerm::Any(delay_ms) => StickyLevel::Any { delay_ms },
        })
        .collect()
}

fn node(term: NodeTerm<'_>) -> NifResult<NodeView> {
    let capacity = term
        .capacity
        .into_iter()
        .map(|(scope, current, limit)| Ok(Capacity { scope: self::scope(scope)?, current: current.0, limit: limit.0 }))
        .collect::<NifResult<_>>()?;
    Ok(NodeView {
        name: term.name,
        stamp_ms: term.stamp_ms,
        counted_at_ms: term.counted_at_ms,
        started_at_ms: term.started_at_ms,
        generation: term.generation,
        servers: term.servers,
        region: term.region,
        draining: term.draining,
        connected: term.connected,
        capacity,
        resources: term.resources.map_or(Ok(Resources::default()), resources)?,
        env: term.env,
        missing: term.missing.into_iter().map(ModuleId).collect(),
    })
}

fn scope(term: Term<'_>) -> NifResult<Scope> {
    match term.decode::<Atom>() {
        Ok(atom) if atom == atoms::total() => Ok(Scope::Total),
        Ok(_) => Err(Error::BadArg),
        Err(_) => Ok(Scope::Module(ModuleId(term.decode()?))),
    }
}

fn resources(map: Term<'_>) -> NifResult<Resources> {
    let number = |key: Atom| -> NifResult<Option<f64>> {
        match map.map_get(key) {
            Ok(value) => Ok(value.decode::<Option<Number>>()?.map(|number| number.0)),
            Err(_) => Ok(None),
        }
    };
    let usage = |used: Atom, max: Atom| Ok::<_, Error>(Usage { used: number(used)?, max: number(max)? });
    Ok(Resources {
        cpu: usage(atoms::cpu(), atoms::max_cpu())?,
        memory: usage(atoms::memory(), atoms::max_memory())?,
        disk: usage(atoms::disk(), atoms::max_disk())?,
    })
}
