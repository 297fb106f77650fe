//! Object stores as an Erlang NIF: stores are resources, and each request is answered by a message to its caller.
//!
//! Guarantees
//! - No function waits: a call takes as long as copying its arguments.
//! - A request gets exactly one message `{tag, answer}`, or none after `store_cancel` has returned true. A request whose
//!   handle is garbage collected is cancelled.
//! - Values of options appear in no term, message or error.
#![deny(unsafe_code)]

mod answer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustler::env::SavedTerm;
use rustler::types::atom;
use rustler::{
    Binary, Encoder, Env, LocalPid, NifMap, NifResult, NifTaggedEnum, NifUnitEnum, OwnedEnv, Reference, Resource,
    ResourceArc, Term,
};
use state_store::{Condition, Limits, Readback, Settings, Store, Write, shared_runtime};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use answer::Answer;

/// An open store.
pub struct StoreResource {
    store: Store,
    runtime: Handle,
}

#[rustler::resource_impl]
impl Resource for StoreResource {}

const WAITING: u8 = 0;
const ANSWERED: u8 = 1;
const CANCELLED: u8 = 2;

/// A request in flight: `WAITING` until it is answered or cancelled, whichever comes first.
pub struct RequestResource {
    state: Arc<AtomicU8>,
    task: AbortHandle,
}

#[rustler::resource_impl]
impl Resource for RequestResource {}

impl RequestResource {
    /// Cancels the request. Returns true if no answer was sent; none will be sent then.
    fn cancel(&self) -> bool {
        let cancelled =
            self.state.compare_exchange(WAITING, CANCELLED, Ordering::AcqRel, Ordering::Acquire) != Err(ANSWERED);
        if cancelled {
            self.task.abort();
        }
        cancelled
    }
}

impl Drop for RequestResource {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[derive(NifMap)]
struct Bounds {
    max_in_flight: usize,
    max_waiting: usize,
    urgent_keys: String,
    attempt_timeout_ms: u64,
    max_object_bytes: u64,
    cache_bytes: usize,
    cache_ms: u64,
    assume_conditions: bool,
}

#[derive(NifUnitEnum)]
enum ReadbackTerm {
    Always,
    AfterLostAnswer,
}

#[derive(NifTaggedEnum)]
enum ConditionTerm {
    Always,
    Absent,
    Etag(String),
}

#[derive(NifTaggedEnum)]
enum RequestTerm<'a> {
    Check,
    Get(String, bool),
    Put(String, Binary<'a>, ConditionTerm, ReadbackTerm, bool),
    Delete(String, Option<String>),
    List(String, Option<String>, usize),
}

/// A request that owns its data, for another thread.
enum Request {
    Check,
    Get(String, bool),
    Put(String, Vec<u8>, Write),
    Delete(String, Option<String>),
    List(String, Option<String>, usize),
}

#[rustler::nif(schedule = "DirtyIo")]
fn store_open<'a>(env: Env<'a>, url: String, options: Vec<(String, String)>, bounds: Bounds) -> Term<'a> {
    let settings = Settings {
        options,
        max_in_flight: bounds.max_in_flight,
        max_waiting: bounds.max_waiting,
        urgent_keys: bounds.urgent_keys,
        attempt_timeout: Duration::from_millis(bounds.attempt_timeout_ms),
        max_object_bytes: bounds.max_object_bytes,
        cache_bytes: bounds.cache_bytes,
        cache_lasts: Duration::from_millis(bounds.cache_ms),
        read_only: false,
        assume_conditions: bounds.assume_conditions,
    };
    let runtime = match shared_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return answer::no_threads(env, &error),
    };
    match Store::open(&url, &settings) {
        Ok(store) => (atom::ok(), ResourceArc::new(StoreResource { store, runtime })).encode(env),
        Err(error) => answer::failed(env, &error),
    }
}

#[rustler::nif]
fn store_request<'a>(
    env: Env<'a>,
    store: ResourceArc<StoreResource>,
    tag: Reference<'a>,
    request: RequestTerm<'a>,
    timeout_ms: u64,
    retries: u32,
) -> ResourceArc<RequestResource> {
    start(env, &store, tag, request, timeout_ms, retries)
}

/// As the function above, on a dirty scheduler for large bodies.
#[rustler::nif(schedule = "DirtyCpu")]
fn store_request_dirty<'a>(
    env: Env<'a>,
    store: ResourceArc<StoreResource>,
    tag: Reference<'a>,
    request: RequestTerm<'a>,
    timeout_ms: u64,
    retries: u32,
) -> ResourceArc<RequestResource> {
    start(env, &store, tag, request, timeout_ms, retries)
}

/// Cancels a request. True: no answer will come. False: the answer has been sent.
#[rustler::nif]
fn store_cancel(request: ResourceArc<RequestResource>) -> bool {
    request.cancel()
}

#[rustler::nif]
fn store_stats(env: Env<'_>, store: ResourceArc<StoreResource>) -> NifResult<Term<'_>> {
    answer::stats(env, store.store.stats())
}

fn start<'a>(
    env: Env<'a>,
    store: &StoreResource,
    tag: Reference<'a>,
    request: RequestTerm<'a>,
    timeout_ms: u64,
    retries: u32,
) -> ResourceArc<RequestResource> {
    let limits = Limits { timeout: Duration::from_millis(timeout_ms), retries };
    let state = Arc::new(AtomicU8::new(WAITING));
    let reply = Reply { to: env.pid(), state: Arc::clone(&state), env: OwnedEnv::new() };
    let tag = reply.env.save(tag);
    let (requests, request) = (store.store.clone(), Request::from(request));
    let task = store.runtime.spawn(async move {
        let answer = run(&requests, request, limits).await;
        reply.send(&tag, &answer);
    });
    ResourceArc::new(RequestResource { state, task: task.abort_handle() })
}

async fn run(store: &Store, request: Request, limits: Limits) -> Answer {
    let answer = match request {
        Request::Check => store.check(limits).await.map(|()| Answer::Done),
        Request::Get(key, consistent) => store.get(&key, consistent, limits).await.map(Answer::Object),
        Request::Put(key, body, write) => store.put(&key, body.into(), &write, limits).await.map(Answer::Written),
        Request::Delete(key, etag) => store.delete(&key, etag, limits).await.map(|()| Answer::Done),
        Request::List(prefix, after, max) => store.list(&prefix, after, max, limits).await.map(Answer::Listed),
    };
    answer.unwrap_or_else(Answer::Failed)
}

/// The recipient of an answer.
struct Reply {
    to: LocalPid,
    state: Arc<AtomicU8>,
    env: OwnedEnv,
}

impl Reply {
    fn send(mut self, tag: &SavedTerm, answer: &Answer) {
        if self.state.compare_exchange(WAITING, ANSWERED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            // Fails when the process has ended.
            let _ = self.env.send_and_clear(&self.to, |env| (tag.load(env), answer.encode(env)));
        }
    }
}

impl From<RequestTerm<'_>> for Request {
    fn from(request: RequestTerm<'_>) -> Self {
        match request {
            RequestTerm::Check => Self::Check,
            RequestTerm::Get(key, consistent) => Self::Get(key, consistent),
            RequestTerm::Put(key, body, condition, readback, keep) => {
                let readback = match readback {
                    ReadbackTerm::Always => Readback::Always,
                    ReadbackTerm::AfterLostAnswer => Readback::AfterLostAnswer,
                };
                Self::Put(key, body.as_slice().to_vec(), Write { condition: condition.into(), readback, keep })
            }
            RequestTerm::Delete(key, etag) => Self::Delete(key, etag),
            RequestTerm::List(prefix, after, max) => Self::List(prefix, after, max),
        }
    }
}

impl From<ConditionTerm> for Condition {
    fn from(condition: ConditionTerm) -> Self {
        match condition {
            ConditionTerm::Always => Self::Always,
            ConditionTerm::Absent => Self::Absent,
            ConditionTerm::Etag(etag) => Self::Etag(etag),
        }
    }
}

rustler::init!("Elixir.DurableHandoff.Store.Native", load = load);

/// The module passes the version that it is of. A library of another version is refused.
fn load(_env: Env<'_>, version: Term<'_>) -> bool {
    version.decode::<&str>().is_ok_and(|version| version == env!("CARGO_PKG_VERSION"))
}
