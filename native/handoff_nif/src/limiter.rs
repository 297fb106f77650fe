//! The concurrency limiter alone, for work that is not a drain: starting the leftovers of another node.
//!
//! Guarantees
//! - A permit counts from the moment it is taken until it is returned. Returning it twice, or returning an unknown
//!   permit, has no effect.
//! - No call waits for the lock: when it is held, the call returns `{:error, :busy}`. Every call is O(log n) in the
//!   permits in use.

use std::collections::BTreeMap;
use std::sync::{Mutex, TryLockError};

use handoff_core::limiter::{Concurrency, Limiter, Permit, Verdict};
use handoff_core::time::Micros;
use rustler::types::atom;
use rustler::{Encoder, Env, Error, NifResult, Resource, ResourceArc, Term};

use crate::answers;
use crate::terms::Value;

/// A limiter and the permits in use, by the numbers that Elixir has for them.
struct Permits {
    limiter: Limiter,
    out: BTreeMap<u64, Permit>,
    last: u64,
}

/// One limiter, used by one process.
pub struct Pace {
    state: Mutex<Permits>,
}

#[rustler::resource_impl]
impl Resource for Pace {}

impl Pace {
    fn with<'a>(&self, env: Env<'a>, work: impl FnOnce(&mut Permits) -> Term<'a>) -> NifResult<Term<'a>> {
        match self.state.try_lock() {
            Ok(mut permits) => Ok(work(&mut permits)),
            Err(TryLockError::WouldBlock) => Ok(answers::busy(env)),
            Err(TryLockError::Poisoned(_)) => Err(Error::RaiseTerm(Box::new("the limiter panicked earlier"))),
        }
    }
}

#[rustler::nif]
fn limiter_new(Value(mode): Value<Concurrency>, ceiling: u32) -> ResourceArc<Pace> {
    let limiter = Limiter::new(mode, ceiling);
    ResourceArc::new(Pace { state: Mutex::new(Permits { limiter, out: BTreeMap::new(), last: 0 }) })
}

/// The number of a permit, or nil when no more may be taken now.
#[rustler::nif]
fn limiter_take<'a>(env: Env<'a>, pace: ResourceArc<Pace>, now_us: u64) -> NifResult<Term<'a>> {
    pace.with(env, |permits| {
        permits.limiter.on_tick(Micros(now_us));
        if permits.limiter.available() == 0 {
            return atom::nil().encode(env);
        }
        permits.last += 1;
        let permit = permits.limiter.on_start(Micros(now_us));
        permits.out.insert(permits.last, permit);
        permits.last.encode(env)
    })
}

#[rustler::nif]
fn limiter_give<'a>(
    env: Env<'a>,
    pace: ResourceArc<Pace>,
    now_us: u64,
    permit: u64,
    latency_us: u64,
    Value(verdict): Value<Verdict>,
) -> NifResult<Term<'a>> {
    pace.with(env, |permits| {
        if let Some(permit) = permits.out.remove(&permit) {
            permits.limiter.on_finish(Micros(now_us), permit, Micros(latency_us), verdict);
        }
        atom::ok().encode(env)
    })
}
