//! The engine as a resource: one drain, its ledger and its limiter behind one lock.
//!
//! Guarantee: no call waits for the lock. One process polls a drain, so a lock that is held is a caller's mistake: the
//! call returns `{:error, :busy}`. After a panic inside the engine every call raises, because the state may be half
//! changed.

use std::sync::{Mutex, TryLockError};

use handoff_core::event::{Action, Event};
use handoff_core::time::Micros;
use handoff_core::{ClusterView, Config, Engine, ModuleId, ServerSpec, Shared, StickyId};
use rustler::types::atom;
use rustler::{Encoder, Env, Error, NewBinary, NifResult, Resource, ResourceArc, Term};

use crate::answers;
use crate::terms::Value;

/// One server: module, sticky signature, priority. Not through serde: there may be a million of them.
pub type ServerTerm = (u32, u32, i32);

/// A server as the engine takes it.
pub fn server((module, sticky, priority): ServerTerm) -> ServerSpec {
    ServerSpec { module: ModuleId(module), sticky: StickyId(sticky), priority }
}

pub struct Drain {
    state: Mutex<(Engine, Shared)>,
}

#[rustler::resource_impl]
impl Resource for Drain {}

impl Drain {
    /// Runs `work` on the engine, or says that it is busy.
    fn with<'a>(
        &self,
        env: Env<'a>,
        work: impl FnOnce(&mut Engine, &mut Shared) -> NifResult<Term<'a>>,
    ) -> NifResult<Term<'a>> {
        match self.state.try_lock() {
            Ok(mut state) => {
                let (engine, shared) = &mut *state;
                work(engine, shared)
            }
            Err(TryLockError::WouldBlock) => Ok(answers::busy(env)),
            Err(TryLockError::Poisoned(_)) => Err(Error::RaiseTerm(Box::new("the drain engine panicked earlier"))),
        }
    }

    fn poll<'a>(&self, env: Env<'a>, now_us: u64) -> NifResult<Term<'a>> {
        self.with(env, |engine, shared| Ok(answers::poll(env, &engine.poll(Micros(now_us), shared))))
    }

    fn follow<'a>(&self, env: Env<'a>, now_us: u64, action: &Action) -> NifResult<Term<'a>> {
        self.with(env, |engine, shared| {
            Ok(match engine.follow(Micros(now_us), action, shared) {
                Ok(action) => (atom::ok(), Value(action)).encode(env),
                Err(error) => answers::refused(env, &error),
            })
        })
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn engine_new<'a>(
    env: Env<'a>,
    Value(config): Value<Config>,
    servers: Vec<ServerTerm>,
    Value(view): Value<ClusterView>,
    now_us: u64,
) -> Term<'a> {
    let servers: Vec<_> = servers.into_iter().map(server).collect();
    let mut shared = match config.validate() {
        Ok(()) => Shared::new(&config),
        Err(problems) => return answers::refused(env, &handoff_core::EngineError::Invalid { problems }),
    };
    match Engine::new(config, &servers, view, Micros(now_us), &mut shared) {
        Ok(engine) => {
            let drain = ResourceArc::new(Drain { state: Mutex::new((engine, shared)) });
            (atom::ok(), drain).encode(env)
        }
        Err(error) => answers::refused(env, &error),
    }
}

#[rustler::nif]
fn engine_poll<'a>(env: Env<'a>, drain: ResourceArc<Drain>, now_us: u64) -> NifResult<Term<'a>> {
    drain.poll(env, now_us)
}

/// As `engine_poll`, on a dirty scheduler for large drains: after a new view a poll checks every node for
/// each class of servers, and the last poll visits every server that is left.
#[rustler::nif(schedule = "DirtyCpu")]
fn engine_poll_dirty<'a>(env: Env<'a>, drain: ResourceArc<Drain>, now_us: u64) -> NifResult<Term<'a>> {
    drain.poll(env, now_us)
}

#[rustler::nif]
fn engine_event<'a>(
    env: Env<'a>,
    drain: ResourceArc<Drain>,
    now_us: u64,
    Value(event): Value<Event>,
) -> NifResult<Term<'a>> {
    take_in(env, &drain, now_us, event)
}

#[rustler::nif]
fn engine_follow<'a>(
    env: Env<'a>,
    drain: ResourceArc<Drain>,
    now_us: u64,
    Value(action): Value<Action>,
) -> NifResult<Term<'a>> {
    drain.follow(env, now_us, &action)
}

/// As `engine_follow`, on a dirty scheduler for the end of a large drain, which visits every server that is left.
#[rustler::nif(schedule = "DirtyCpu")]
fn engine_follow_dirty<'a>(
    env: Env<'a>,
    drain: ResourceArc<Drain>,
    now_us: u64,
    Value(action): Value<Action>,
) -> NifResult<Term<'a>> {
    drain.follow(env, now_us, &action)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn engine_view<'a>(
    env: Env<'a>,
    drain: ResourceArc<Drain>,
    now_us: u64,
    Value(view): Value<ClusterView>,
) -> NifResult<Term<'a>> {
    take_in(env, &drain, now_us, Event::View(view))
}

#[rustler::nif]
fn engine_end_within<'a>(env: Env<'a>, drain: ResourceArc<Drain>, now_us: u64, span_us: u64) -> NifResult<Term<'a>> {
    take_in(env, &drain, now_us, Event::EndWithin(Micros(span_us)))
}

#[rustler::nif]
fn engine_coordinator_lost<'a>(env: Env<'a>, drain: ResourceArc<Drain>, now_us: u64) -> NifResult<Term<'a>> {
    take_in(env, &drain, now_us, Event::CoordinatorLost)
}

#[rustler::nif]
fn engine_progress(env: Env<'_>, drain: ResourceArc<Drain>) -> NifResult<Term<'_>> {
    drain.with(env, |engine, shared| Ok(Value(engine.progress(shared)).encode(env)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn engine_report<'a>(env: Env<'a>, drain: ResourceArc<Drain>, now_us: u64) -> NifResult<Term<'a>> {
    drain.with(env, |engine, shared| Ok(Value(engine.report(Micros(now_us), shared)).encode(env)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn engine_results(env: Env<'_>, drain: ResourceArc<Drain>) -> NifResult<Term<'_>> {
    drain.with(env, |engine, _shared| {
        let results = engine.results();
        let mut binary = NewBinary::new(env, results.len());
        binary.as_mut_slice().copy_from_slice(&results);
        Ok(binary.into())
    })
}

fn take_in<'a>(env: Env<'a>, drain: &Drain, now_us: u64, event: Event) -> NifResult<Term<'a>> {
    drain.with(env, |engine, shared| {
        Ok(match engine.on_event(Micros(now_us), event, shared) {
            Ok(()) => atom::ok().encode(env),
            Err(error) => answers::refused(env, &error),
        })
    })
}
