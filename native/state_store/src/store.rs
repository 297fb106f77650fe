//! A store: a backend, a prefix, a gate, and the steps of a request.

mod delete;
mod proof;
mod write;

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::gate::Lanes;
use crate::retry::{self, Course};
use crate::{Error, Limits, Object, ObjectRef, Page, Settings, Write, key, tombstone};
use proof::Identity;

/// An open store. Cheap to clone; all clones share its bounds.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    prefix: String,
    backend: Backend,
    gate: Lanes,
    cache: Cache,
    attempt_timeout: Duration,
    max_bytes: u64,
    read_only: bool,
    assume_conditions: bool,
    identity: Identity,
    stats: Mutex<Stats>,
}

/// What a store has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests sent, including retries.
    pub requests: u64,
    /// Of these, retries after a failure.
    pub retries: u64,
    /// How often the store asked for fewer requests.
    pub slow_downs: u64,
    /// Conditional writes that were refused and turned out to be applied.
    pub readbacks: u64,
    /// Reads that were answered from memory with what was just written.
    pub cached: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a store without sending a request. [`Store::check`] finds out whether it works.
    pub fn open(url: &str, settings: &Settings) -> Result<Self, Error> {
        let (backend, prefix) = crate::open::open(url, settings)?;
        Ok(Self::over(backend, prefix, url, settings))
    }

    pub(crate) fn over(backend: Backend, prefix: String, url: &str, settings: &Settings) -> Self {
        let inner = Inner {
            url: url.to_owned(),
            prefix,
            backend,
            gate: Lanes::new(settings),
            cache: Cache::new(settings.cache_bytes, settings.cache_lasts),
            attempt_timeout: settings.attempt_timeout,
            max_bytes: settings.max_object_bytes,
            read_only: settings.read_only,
            assume_conditions: settings.assume_conditions,
            identity: Identity::new(url, settings),
            stats: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The URL it was opened by, which never holds credentials.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    pub fn stats(&self) -> Stats {
        *self.counts()
    }

    fn counts(&self) -> MutexGuard<'_, Stats> {
        self.inner.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the store answers, the bucket exists, the credentials are valid, and the store keeps one
    /// owner for each key. Lists at most one key, then races conditional writes under a key of its own (see
    /// `proof`). The race is skipped if the store has passed it within the last hour, is open for reading
    /// only, or has [`Settings::assume_conditions`].
    pub async fn check(&self, limits: Limits) -> Result<(), Error> {
        let began = Instant::now();
        let check = async {
            self.list("", None, 1, limits).await?;
            if self.inner.read_only || self.inner.assume_conditions {
                return Ok(());
            }
            proof::ensure(self, &self.inner.identity, limits, began).await
        };
        tokio::time::timeout(limits.timeout, check).await.unwrap_or(Err(Error::Timeout))
    }

    /// Reads an object. `consistent` asks for the newest version where a store could answer with an older
    /// one. The read after a write with [`Write::keep`] costs no request.
    pub async fn get(&self, key: &str, consistent: bool, limits: Limits) -> Result<Object, Error> {
        let key = self.key(key)?;
        if let Some(object) = self.inner.cache.take(&key) {
            self.counts().cached += 1;
            return Ok(object);
        }
        self.request(&key, limits, async |course| match self.read(&key, consistent, course).await {
            Ok(there) if tombstone::is(&there.body) => Err(Error::NotFound),
            answer => answer,
        })
        .await
    }

    /// Writes an object under a condition and returns its new etag. The write may have been applied after an error that
    /// [`Error::is_unsure`], and after any other one but [`Error::Conflict`] if it was sent more than once.
    pub async fn put(&self, key: &str, body: Bytes, write: &Write, limits: Limits) -> Result<String, Error> {
        let key = self.writable(key)?;
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if bytes > self.inner.max_bytes {
            return Err(Error::TooLarge { bytes, limit: self.inner.max_bytes });
        }
        // The state of the object is unknown until the response arrives.
        let change = self.inner.cache.change(&key);
        let etag = self.request(&key, limits, async |course| self.write(&key, &body, write, course).await).await?;
        if write.keep {
            change.wrote(Object { body, etag: etag.clone() });
        }
        Ok(etag)
    }

    /// Deletes an object; with an etag only this version of the object, without one the version that it finds. What
    /// is written after a deletion whose response was lost stays. Without an etag, S3 servers other than AWS also
    /// delete what replaces the version in the round trip after it was found.
    pub async fn delete(&self, key: &str, etag: Option<String>, limits: Limits) -> Result<(), Error> {
        let key = self.writable(key)?;
        let _change = self.inner.cache.change(&key);
        self.request(&key, limits, async |course| self.erase(&key, etag.as_deref(), course).await).await
    }

    /// The objects whose keys start with `prefix`, up to `max` at a time; `after` is the last page's
    /// [`Page::next`].
    pub async fn list(&self, prefix: &str, after: Option<String>, max: usize, limits: Limits) -> Result<Page, Error> {
        let own = &self.inner.prefix;
        let prefix = format!("{own}{prefix}");
        self.request(&prefix, limits, async |course| {
            let mut page = self
                .retried(course, || self.attempt(self.inner.backend.list(&prefix, after.clone(), max.max(1))))
                .await?;
            if page.next.is_some() && page.next == after {
                return Err(Error::Protocol { reason: "the listing gives the same page again" });
            }
            // Some stores ignore the prefix and return all keys.
            page.objects = page
                .objects
                .into_iter()
                .filter(|object| object.key.starts_with(&prefix))
                .filter_map(|object| {
                    let key = object.key.strip_prefix(own.as_str())?.to_owned();
                    Some(ObjectRef { key, ..object })
                })
                .collect();
            Ok(page)
        })
        .await
    }

    fn key(&self, key: &str) -> Result<String, Error> {
        key::check(key)?;
        let key = format!("{}{key}", self.inner.prefix);
        key::check(&key)?;
        Ok(key)
    }

    fn writable(&self, key: &str) -> Result<String, Error> {
        if self.inner.read_only { Err(Error::ReadOnly) } else { self.key(key) }
    }

    /// An object, or a tombstone.
    async fn read(&self, key: &str, consistent: bool, course: &mut Course) -> Result<Object, Error> {
        let unsure = course.unsure;
        let there = self.retried(course, || self.attempt(self.inner.backend.get(key, consistent))).await;
        // A read whose response was lost has written nothing.
        course.unsure = unsure;
        there
    }

    async fn retried<T, F>(&self, course: &mut Course, attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        retry::run(course, |started| self.inner.backend.fetch_credentials(started), attempt).await
    }

    /// Runs one request for a key or prefix: waits for its turn, and ends it at its deadline.
    async fn request<T>(
        &self,
        key: &str,
        limits: Limits,
        work: impl AsyncFnOnce(&mut Course) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut course = Course::new(limits.retries);
        let answer = tokio::time::timeout(limits.timeout, async {
            course.turn = Some(self.inner.gate.enter(key).await?);
            work(&mut course).await
        })
        .await
        .unwrap_or(Err(Error::Timeout));
        self.count(&course);
        answer
    }

    fn count(&self, course: &Course) {
        let mut counts = self.counts();
        counts.retries += u64::from(course.retries);
        counts.slow_downs += u64::from(course.slow_downs);
    }

    /// Sends a request once. One that hangs counts as lost.
    async fn attempt<T>(&self, sending: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.counts().requests += 1;
        tokio::time::timeout(self.inner.attempt_timeout, caught(sending)).await.unwrap_or(Err(Error::Timeout))
    }
}

/// A panic as a lost connection: the client panics at some answers of services for credentials, the next answer may be
/// another one, and without any its caller would wait until its time is over.
async fn caught<T>(sending: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut sending = pin!(sending);
    poll_fn(|context| {
        // After a panic it is not polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| sending.as_mut().poll(context)));
        polled.unwrap_or_else(|_panic| {
            let reason = "the HTTP client panicked, standard error says why".to_owned();
            Poll::Ready(Err(Error::Network { reason, sent: true }))
        })
    })
    .await
}
