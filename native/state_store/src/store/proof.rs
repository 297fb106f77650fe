//! The proof at start: finds out whether, of several writes under one condition, exactly one is applied.
//!
//! Only conditional writes guarantee one owner for each key. Many servers accept the headers and ignore them, or
//! check the condition first and write later. Only a race of requests reveals the latter.
//!
//! Guarantees
//! - Each proof writes under a key of its own, and deletes it. Up to two seconds of its time, at most a quarter, are
//!   kept for that.
//! - A proof that succeeds counts for an hour, for all stores of this process with the same URL and options. Those that ask at the
//!   same time wait for the one under way.
//! - A failure has a cause: [`Flaw`].
//!
//! It takes twenty requests at most where nothing fails, in about ten round trips, and four more where etags have to be
//! sent in their other form.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Store;
use crate::key::nonce;
use crate::object::Target;
use crate::remote::etags::Etags;
use crate::retry::Course;
use crate::{Condition, Error, Flaw, Limits, Object, Readback, Settings, Write};

const HOLDS_FOR: Duration = Duration::from_secs(3_600);
/// No state has such a key: the keys of servers are under the prefixes of their supervisors.
const PREFIX: &str = "durable_handoff_proof/";
/// Longer than for other requests, because a proof runs once an hour.
const MIN_RETRIES: u32 = 3;
const CLEARING: Duration = Duration::from_secs(2);

/// The result of a proof, and when it was made.
#[derive(Debug, Clone, Copy)]
struct Proven {
    at: Instant,
    flipped: bool,
}

type Entry = Arc<tokio::sync::Mutex<Option<Proven>>>;

static PROVEN: OnceLock<Mutex<HashMap<Identity, Entry>>> = OnceLock::new();

/// A hash of the URL and all options. They are not kept, because any of them may be secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    url: String,
    options: u64,
}

impl Identity {
    pub(crate) fn new(url: &str, settings: &Settings) -> Self {
        let mut hasher = DefaultHasher::new();
        settings.options.hash(&mut hasher);
        Self { url: url.to_owned(), options: hasher.finish() }
    }
}

/// Proves the store, unless that was done within the last hour. `began`: since when the time of `limits` runs.
pub(crate) async fn ensure(store: &Store, identity: &Identity, limits: Limits, began: Instant) -> Result<(), Error> {
    let entry = {
        let mut proven = PROVEN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        // Drops entries that are too old and have no proof under way.
        proven.retain(|_identity, entry| {
            Arc::strong_count(entry) > 1 || entry.try_lock().is_ok_and(|entry| holds(&entry))
        });
        Arc::clone(proven.entry(identity.clone()).or_default())
    };
    let mut entry = entry.lock().await;
    if let Some(proven) = *entry
        && holds(&entry)
    {
        store.set_etags_flipped(proven.flipped);
        return Ok(());
    }
    let limits = Limits { retries: limits.retries.max(MIN_RETRIES), ..limits };
    let flipped = prove(store, limits, began).await?;
    *entry = Some(Proven { at: Instant::now(), flipped });
    Ok(())
}

fn holds(entry: &Option<Proven>) -> bool {
    entry.is_some_and(|proven| proven.at.elapsed() < HOLDS_FOR)
}

/// Whether etags have to be sent in their other form.
async fn prove(store: &Store, limits: Limits, began: Instant) -> Result<bool, Error> {
    let key = format!("{PREFIX}{}", nonce());
    let proof = Proof { store, key: &key, limits };
    let left = limits.timeout.saturating_sub(began.elapsed());
    // Another proof of the store has used the time.
    if left < CLEARING {
        return Err(Error::Timeout);
    }
    let result = tokio::time::timeout(left.saturating_sub(CLEARING.min(left / 4)), proof.run()).await;
    let result = result.unwrap_or(Err(Error::Timeout));
    if result.is_err() {
        // A store that refused the proof may refuse the deletion as well; then an object of a few bytes
        // stays. The time limit keeps the deletion from delaying the report of the flaw.
        let _ = tokio::time::timeout(CLEARING, store.delete_ungated(&key, None, limits)).await;
    }
    result
}

/// The requests of the proof. They are not queued, so that they race regardless of the limits. The key is
/// under the store's prefix.
impl Store {
    async fn ungated<T>(
        &self,
        limits: Limits,
        work: impl AsyncFnOnce(&mut Course) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut course = Course::new(limits.retries);
        let answer = work(&mut course).await;
        self.count(&course);
        answer
    }

    async fn get_ungated(&self, key: &str, limits: Limits) -> Result<Object, Error> {
        let key = self.key(key)?;
        self.ungated(limits, async |course| self.read(&key, true, course).await).await
    }

    async fn put_ungated(&self, key: &str, body: &Bytes, write: &Write, limits: Limits) -> Result<String, Error> {
        let key = self.writable(key)?;
        self.ungated(limits, async |course| self.write(&key, body, write, course).await).await
    }

    async fn delete_ungated(&self, key: &str, etag: Option<&str>, limits: Limits) -> Result<(), Error> {
        let key = self.writable(key)?;
        self.ungated(limits, async |course| self.erase(&key, etag, course).await).await
    }

    /// Deletes one version by the condition alone, where deletions rely on it. A read before would find out that the
    /// version is not there.
    async fn delete_unseen(&self, key: &str, etag: &str, limits: Limits) -> Result<(), Error> {
        if self.inner.backend.needs_tombstones() {
            return self.delete_ungated(key, Some(etag), limits).await;
        }
        let key = self.writable(key)?;
        let delete = || self.attempt(self.inner.backend.delete(&key, Target::Unseen(etag)));
        self.ungated(limits, async |course| match self.retried(course, delete).await {
            // The answer to an earlier attempt was lost, which has deleted the object.
            Err(Error::NotFound) if course.unsure => Ok(()),
            deleted => deleted,
        })
        .await
    }

    fn are_etags_flipped(&self) -> bool {
        self.inner.backend.etags().is_some_and(Etags::is_flipped)
    }

    fn set_etags_flipped(&self, flipped: bool) {
        if let Some(etags) = self.inner.backend.etags() {
            etags.set_flipped(flipped);
        }
    }
}

struct Proof<'a> {
    store: &'a Store,
    key: &'a str,
    limits: Limits,
}

impl Proof<'_> {
    async fn run(&self) -> Result<bool, Error> {
        let (body, etag) = self.claim().await?;
        self.read_back(&body, &etag).await?;
        let (body, newer, flipped) = self.update(&etag).await?;
        match self.put(Condition::Etag(etag.clone())).await.1 {
            Err(Error::Conflict) => {}
            Ok(_) => return unfit(Flaw::ConditionsIgnored),
            Err(error) => return Err(named(error)),
        }
        self.read_back(&body, &newer).await?;
        self.delete(&etag, &newer).await?;
        Ok(flipped)
    }

    /// Several claims of a fresh key: one wins.
    async fn claim(&self) -> Result<(Bytes, String), Error> {
        let mut won = self.race(&Condition::Absent).await?;
        match (won.len(), won.pop()) {
            (1, Some(winner)) => Ok(winner),
            (0, _) => unfit(Flaw::ConditionsRefused),
            _several => match self.put(Condition::Absent).await.1 {
                Ok(_) => unfit(Flaw::ConditionsIgnored),
                Err(_) => unfit(Flaw::ConditionsNotAtomic),
            },
        }
    }

    /// Several updates of one version: one wins. None wins where etags have to be sent in another form.
    async fn update(&self, etag: &str) -> Result<(Bytes, String, bool), Error> {
        let condition = Condition::Etag(etag.to_owned());
        let mut won = self.race(&condition).await?;
        let mut flipped = self.store.are_etags_flipped();
        if won.is_empty() && etag.starts_with("W/") {
            return unfit(Flaw::WeakEtags);
        }
        if won.is_empty() {
            flipped = !flipped;
            self.store.set_etags_flipped(flipped);
            won = self.race(&condition).await?;
            if won.is_empty() {
                self.store.set_etags_flipped(!flipped);
                return unfit(Flaw::EtagsNotUsable);
            }
        }
        match (won.len(), won.pop()) {
            (1, Some((body, newer))) => Ok((body, newer, flipped)),
            _several => match self.put(condition).await.1 {
                Ok(_) => unfit(Flaw::ConditionsIgnored),
                Err(_) => unfit(Flaw::ConditionsNotAtomic),
            },
        }
    }

    async fn read_back(&self, body: &Bytes, etag: &str) -> Result<(), Error> {
        match self.store.get_ungated(self.key, self.limits).await {
            Ok(found) if found.body == *body && found.etag == etag => Ok(()),
            // A proxy that compresses makes the etags of responses with a body weak.
            Ok(found) if found.etag.starts_with("W/") && !etag.starts_with("W/") => unfit(Flaw::WeakEtags),
            Ok(_) | Err(Error::NotFound) => unfit(Flaw::StaleReads),
            Err(error) => Err(error),
        }
    }

    /// A deletion of an old version leaves the new one, and one of the new version does not.
    async fn delete(&self, old: &str, newer: &str) -> Result<(), Error> {
        match self.store.delete_unseen(self.key, old, self.limits).await {
            Err(Error::Conflict) => {}
            Ok(()) => return unfit(Flaw::DeletionsIgnoreConditions),
            Err(error) => return Err(named(error)),
        }
        self.store.delete_ungated(self.key, Some(newer), self.limits).await.map_err(named)
    }

    /// Which of four concurrent writes were applied. If the store was too busy for all of them, the race is void.
    async fn race(&self, condition: &Condition) -> Result<Vec<(Bytes, String)>, Error> {
        let put = || self.put(condition.clone());
        let answers: [_; 4] = tokio::join!(put(), put(), put(), put()).into();
        let (mut won, mut busy) = (Vec::new(), None);
        for (body, answer) in answers {
            match answer {
                Ok(etag) => won.push((body, etag)),
                Err(Error::Conflict) => {}
                Err(error @ (Error::Contended | Error::Paced { .. })) => busy = Some(error),
                Err(error) => return Err(named(error)),
            }
        }
        match busy {
            Some(error) if won.is_empty() => Err(error),
            _ => Ok(won),
        }
    }

    async fn put(&self, condition: Condition) -> (Bytes, Result<String, Error>) {
        let body = Bytes::from(format!("{{\"durable_handoff_proof\":\"{}\"}}", nonce()));
        let write = Write { condition, readback: Readback::AfterLostAnswer, keep: false };
        let answer = self.store.put_ungated(self.key, &body, &write, self.limits).await;
        (body, answer)
    }
}

fn unfit<T>(flaw: Flaw) -> Result<T, Error> {
    Err(Error::Unfit { flaw })
}

/// The flaw that an error of a conditional write reveals.
fn named(error: Error) -> Error {
    match error {
        Error::Unsupported { .. } => Error::Unfit { flaw: Flaw::ConditionsRefused },
        // The listing before was allowed. A clock or a region that is wrong would have been refused there.
        Error::Denied { .. } => Error::Unfit { flaw: Flaw::CredentialsReadOnly },
        error => error,
    }
}
