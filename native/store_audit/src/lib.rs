//! Audits a store: reads what its objects say about the durable servers.
//!
//! Guarantees
//! - The audit only lists and reads. It writes, claims and clears nothing.
//! - An object that cannot be read is a finding, not a failure. Only a listing that fails ends the audit.
//! - Bounded: [`READS_AT_A_TIME`] objects in memory, and [`MAX_FINDINGS`] findings of a kind with their keys.
//!   The counts are complete.
//! - A server that would be a finding is read once more at the end, after all heartbeats: it may have moved since, and
//!   nodes may have come or gone.
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

use std::time::Duration;

use state_store::{Error, Limits, Object, Store};
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
    let mut found = Collector::default();
    let mut far = Progress { listed: 0, read: 0, complete: false };
    let mut pages = Pages::of(store, prefix);
    while let Some(keys) = pages.next().await? {
        far.listed += keys.len() as u64;
        read(store, keys, |key, answer| {
            far.read += 1;
            progress(far);
            found.take(&nodes, key, answer);
        })
        .await;
    }
    if !found.suspects(now_ms).is_empty() {
        let mut pages = Pages::of(store, &nodes);
        while let Some(keys) = pages.next().await? {
            read(store, keys, |key, answer| found.take(&nodes, key, answer)).await;
        }
        read(store, found.suspects(now_ms), |key, answer| found.take(&nodes, key, answer)).await;
    }
    far.complete = true;
    progress(far);
    Ok(found.report(now_ms))
}

/// The pages of a listing.
struct Pages<'a> {
    store: &'a Store,
    prefix: &'a str,
    after: Option<String>,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn of(store: &'a Store, prefix: &'a str) -> Self {
        Pages { store, prefix, after: None, ended: false }
    }

    /// The keys of the next page.
    async fn next(&mut self) -> Result<Option<Vec<String>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let page = self.store.list(self.prefix, self.after.take(), PAGE, LIMITS).await?;
        (self.ended, self.after) = (page.next.is_none(), page.next);
        Ok(Some(page.objects.into_iter().map(|object| object.key).collect()))
    }
}

/// Reads these objects, [`READS_AT_A_TIME`] at a time.
async fn read(store: &Store, keys: Vec<String>, mut take: impl FnMut(String, Result<Object, Error>)) {
    let mut keys = keys.into_iter();
    let mut reads = JoinSet::new();
    loop {
        while reads.len() < READS_AT_A_TIME
            && let Some(key) = keys.next()
        {
            let store = store.clone();
            reads.spawn(async move {
                let answer = store.get(&key, true, LIMITS).await;
                (key, answer)
            });
        }
        match reads.join_next().await {
            Some(Ok((key, answer))) => take(key, answer),
            // A read that panicked.
            Some(Err(_panicked)) => {}
            None => return,
        }
    }
}
