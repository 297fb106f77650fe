//! Audits a store: reads what its objects say about the durable servers.
//!
//! Guarantees
//! - The audit only lists and reads. It writes, claims and clears nothing.
//! - An object that cannot be read is a finding, not a failure. Only a listing that fails ends the audit.
//! - Bounded: [`READS_AT_A_TIME`] objects in memory, and [`MAX_FINDINGS`] findings of a kind with their keys.
//!   The counts are complete.
//!
//! The result is a snapshot: a server that moves during the audit is seen at its old or its new place.
//!
//! | to change | look at |
//! |---|---|
//! | the parts of an object that are read | [`object`] |
//! | what counts as a finding | [`findings`] |
//! | the printed table | `table` |
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "items without a comment are what their name and type say")]

pub mod findings;
pub mod object;
mod table;

use std::sync::Arc;
use std::time::Duration;

use state_store::{Error, Limits, Store};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use findings::{Collector, Report};

/// Enough reads at a time to hide the latency of the store.
pub const READS_AT_A_TIME: usize = 32;
/// The most findings of one kind that are kept with their keys.
pub const MAX_FINDINGS: usize = 10_000;
/// A node whose last heartbeat is older is considered gone: the age that DurableServer's own placement uses.
pub const MAX_HEARTBEAT_AGE_MS: i64 = 50_000;

const PAGE: usize = 1_000;
const LIMITS: Limits = Limits { timeout: Duration::from_secs(60), retries: 5 };
/// Where heartbeats are, below the supervisor's prefix.
const NODES: &str = "__nodes/";

/// Progress of an audit. The total is unknown: a listing does not give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub listed: u64,
    pub read: u64,
    pub complete: bool,
}

/// Audits everything under `prefix`, the supervisor's own. `now_ms` is the wall clock with which heartbeats
/// and reservations are compared. `progress` is called after each object, and at the end.
pub async fn audit(
    store: &Store,
    prefix: &str,
    now_ms: i64,
    mut progress: impl FnMut(Progress),
) -> Result<Report, Error> {
    let nodes = format!("{prefix}{NODES}");
    let turns = Arc::new(Semaphore::new(READS_AT_A_TIME));
    let mut found = Collector::default();
    let mut far = Progress { listed: 0, read: 0, complete: false };
    let mut after = None;
    loop {
        let page = store.list(prefix, after, PAGE, LIMITS).await?;
        let mut reads = JoinSet::new();
        for listed in page.objects {
            far.listed += 1;
            let (store, turns) = (store.clone(), Arc::clone(&turns));
            reads.spawn(async move {
                // The semaphore is never closed.
                let _turn = turns.acquire().await;
                let read = store.get(&listed.key, true, LIMITS).await;
                (listed.key, read)
            });
        }
        while let Some(read) = reads.join_next().await {
            let Ok((key, answer)) = read else { continue };
            far.read += 1;
            progress(far);
            match (key.strip_prefix(&nodes), answer) {
                // The object was deleted after it was listed.
                (_, Err(Error::NotFound)) => {}
                (_, Err(error)) => found.unreadable(key, error.to_string()),
                (Some(node), Ok(object)) => found.heartbeat(node, object::heartbeat(&object.body)),
                (None, Ok(object)) => found.server(key, object::server(&object.body)),
            }
        }
        after = page.next;
        far.complete = after.is_none();
        progress(far);
        if far.complete {
            return Ok(found.report(now_ms));
        }
    }
}
