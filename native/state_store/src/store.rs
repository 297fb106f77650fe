//! A store: a backend, a prefix, a gate, and the steps of a request.

mod proof;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::gate::Gate;
use crate::remote::etags::Etags;
use crate::retry::{self, Course};
use crate::tombstone::Tombstone;
use crate::{Condition, Error, Limits, Object, ObjectRef, Page, Readback, Settings, Write, key, tombstone};
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
    gate: Gate,
    cache: Cache,
    attempt_timeout: Duration,
    max_bytes: u64,
    read_only: bool,
    assume_conditions: bool,
    identity: Identity,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    retries: AtomicU64,
    slow_downs: AtomicU64,
    readbacks: AtomicU64,
    cached: AtomicU64,
}

/// What a store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The result of a write.
enum Met {
    /// Applied: the new etag.
    Nothing(String),
    /// Refused, because a deletion is in progress.
    Tombstone,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a store without sending a request. [`Store::check`] finds out whether it works.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid URL or option, [`Error::Io`] for a directory that cannot be created.
    pub fn open(url: &str, settings: &Settings) -> Result<Self, Error> {
        let (backend, prefix) = crate::open::open(url, settings)?;
        let inner = Inner {
            url: url.to_owned(),
            prefix,
            backend,
            gate: Gate::new(settings.max_in_flight, settings.max_waiting),
            cache: Cache::new(settings.cache_bytes, settings.cache_lasts),
            attempt_timeout: settings.attempt_timeout,
            max_bytes: settings.max_object_bytes,
            read_only: settings.read_only,
            assume_conditions: settings.assume_conditions,
            identity: Identity::new(url, settings),
            counts: Counts::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The URL it was opened by, which never holds credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// See [`Stats`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counts = &self.inner.counts;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            requests: load(&counts.requests),
            retries: load(&counts.retries),
            slow_downs: load(&counts.slow_downs),
            readbacks: load(&counts.readbacks),
            cached: load(&counts.cached),
        }
    }

    /// Checks that the store answers, the bucket exists, the credentials are valid, and the store keeps one
    /// owner for each key. Lists at most one key, then races conditional writes under a key of its own (see
    /// `proof`). The race is skipped if the store has passed it within the last hour, is open for reading
    /// only, or has [`Settings::assume_conditions`].
    ///
    /// # Errors
    /// [`Error::Unfit`] for a store that cannot keep one owner; else the error of the request.
    pub async fn check(&self, limits: Limits) -> Result<(), Error> {
        let check = async {
            self.list("", None, 1, limits).await?;
            if self.inner.read_only || self.inner.assume_conditions {
                return Ok(());
            }
            proof::ensure(self, &self.inner.identity, limits).await
        };
        tokio::time::timeout(limits.timeout, check).await.unwrap_or(Err(Error::Timeout))
    }

    /// Reads an object. `consistent` asks for the newest version where a store could answer with an older
    /// one. The read after a write with [`Write::keep`] costs no request.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the error of the request.
    pub async fn get(&self, key: &str, consistent: bool, limits: Limits) -> Result<Object, Error> {
        let key = self.key(key)?;
        if let Some(object) = self.inner.cache.take(&key) {
            self.inner.counts.cached.fetch_add(1, Ordering::Relaxed);
            return Ok(object);
        }
        self.request(limits, async |course| match self.read(&key, consistent, limits.retries, course).await {
            Ok(there) if tombstone::is(&there.body) => Err(Error::NotFound),
            answer => answer,
        })
        .await
    }

    /// Writes an object under a condition and returns its new etag.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the condition does not hold, or the error of the request. If
    /// [`Error::is_unsure`], the write may have been applied.
    pub async fn put(&self, key: &str, body: Bytes, write: &Write, limits: Limits) -> Result<String, Error> {
        let key = self.writable(key)?;
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if bytes > self.inner.max_bytes {
            return Err(Error::TooLarge { bytes, limit: self.inner.max_bytes });
        }
        // The state of the object is unknown until the response arrives.
        let change = self.inner.cache.change(&key);
        let etag = self.write(&key, &body, write, limits).await?;
        if write.keep {
            change.wrote(Object { body, etag: etag.clone() });
        }
        Ok(etag)
    }

    async fn write(&self, key: &str, body: &Bytes, write: &Write, limits: Limits) -> Result<String, Error> {
        self.request(limits, async |course| self.write_once(key, body, write, limits.retries, course).await).await
    }

    async fn write_once(
        &self,
        key: &str,
        body: &Bytes,
        write: &Write,
        retries: u32,
        course: &mut Course,
    ) -> Result<String, Error> {
        let mut pauses = retry::pauses(retries);
        loop {
            match self.write_or_meet(key, body, write, retries, course).await? {
                Met::Nothing(etag) => return Ok(etag),
                // A deletion is in progress, which takes a round trip.
                Met::Tombstone => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(Error::Contended),
                },
            }
        }
    }

    async fn write_or_meet(
        &self,
        key: &str,
        body: &Bytes,
        write: &Write,
        retries: u32,
        course: &mut Course,
    ) -> Result<Met, Error> {
        let written = self.put_retried(key, body, &write.condition, retries, course).await;
        let refused = written == Err(Error::Conflict) && write.condition != Condition::Always;
        let read_back = write.readback == Readback::Always || course.unsure;
        // A claim may have been refused because of a tombstone, which does not count as an object.
        let claims = write.condition == Condition::Absent && self.inner.backend.needs_tombstones();
        if !refused || !(read_back || claims) {
            return written.map(Met::Nothing);
        }
        let lost = course.unsure;
        match self.read(key, true, retries, course).await {
            Ok(there) if there.body == *body && read_back => {
                self.inner.counts.readbacks.fetch_add(1, Ordering::Relaxed);
                Ok(Met::Nothing(there.etag))
            }
            Ok(there) if claims && tombstone::is_abandoned(&there.body) => {
                let over = Condition::Etag(there.etag);
                match self.put_retried(key, body, &over, retries, course).await {
                    // Another claim was faster, or the response to this one was lost. The next read shows
                    // which.
                    Err(Error::Conflict) => Ok(Met::Tombstone),
                    written => written.map(Met::Nothing),
                }
            }
            Ok(there) if claims && tombstone::is(&there.body) => Ok(Met::Tombstone),
            // The object was deleted in between, so the claim may succeed now.
            Err(Error::NotFound) if claims && !lost => Ok(Met::Tombstone),
            // The write may have been applied, so the caller must not be told that it was not.
            Err(error) if lost && error != Error::NotFound => Err(error),
            _other => Err(Error::Conflict),
        }
    }

    async fn put_retried(
        &self,
        key: &str,
        body: &Bytes,
        condition: &Condition,
        retries: u32,
        course: &mut Course,
    ) -> Result<String, Error> {
        self.retried(retries, course, || self.attempt(self.inner.backend.put(key, body.clone(), condition))).await
    }

    /// Deletes an object; with an etag only this version of the object.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`], or the error of the request.
    pub async fn delete(&self, key: &str, etag: Option<String>, limits: Limits) -> Result<(), Error> {
        let key = self.writable(key)?;
        let _change = self.inner.cache.change(&key);
        self.request(limits, async |course| self.delete_once(&key, etag.as_deref(), limits.retries, course).await).await
    }

    async fn delete_once(&self, key: &str, etag: Option<&str>, retries: u32, course: &mut Course) -> Result<(), Error> {
        let backend = &self.inner.backend;
        let condition = match etag {
            Some(etag) if backend.needs_tombstones() => {
                let tombstone = Tombstone::new();
                let etag = self.bury(key, etag, &tombstone, retries, course).await?;
                return self.unearth(key, etag, &tombstone, retries, course).await;
            }
            Some(etag) => Condition::Etag(etag.to_owned()),
            None => Condition::Always,
        };
        match self.retried(retries, course, || self.attempt(backend.delete(key, &condition, true))).await {
            // The response to the deletion was lost: the object is absent because this request deleted it.
            Err(Error::NotFound) if course.unsure => Ok(()),
            deleted => deleted,
        }
    }

    /// Overwrites one version of an object with a tombstone. Returns the tombstone's etag.
    async fn bury(
        &self,
        key: &str,
        etag: &str,
        tombstone: &Tombstone,
        retries: u32,
        course: &mut Course,
    ) -> Result<String, Error> {
        let condition = Condition::Etag(etag.to_owned());
        match self.put_retried(key, tombstone.body(), &condition, retries, course).await {
            Err(Error::Conflict) => match self.read(key, true, retries, course).await {
                Ok(there) if there.body == *tombstone.body() => Ok(there.etag),
                Ok(there) if tombstone::is(&there.body) => Err(Error::NotFound),
                Ok(_newer) => Err(Error::Conflict),
                Err(error) => Err(error),
            },
            buried => buried,
        }
    }

    /// Deletes a tombstone. The store may ignore the condition of the deletion and delete any object. So the
    /// deletion is sent only while no claim can have replaced the tombstone: not late, not again without a
    /// read, and not again while an unanswered deletion may still arrive. A tombstone that stays does not
    /// count as an object, and a claim overwrites it once it is abandoned.
    async fn unearth(
        &self,
        key: &str,
        etag: String,
        tombstone: &Tombstone,
        retries: u32,
        course: &mut Course,
    ) -> Result<(), Error> {
        let (backend, condition) = (&self.inner.backend, Condition::Etag(etag));
        let sent = AtomicBool::new(false);
        let attempt = || async {
            if sent.swap(true, Ordering::Relaxed) {
                match self.attempt(backend.get(key, true)).await {
                    Ok(there) if there.body == *tombstone.body() => {}
                    Ok(_) | Err(Error::NotFound) => return Ok(Ok(())),
                    Err(error) => return Err(error),
                }
            }
            if tombstone.is_old() {
                return Ok(Err(Error::Timeout));
            }
            match self.attempt(backend.delete(key, &condition, false)).await {
                // A claim has replaced the tombstone.
                Ok(()) | Err(Error::NotFound | Error::Conflict) => Ok(Ok(())),
                Err(Error::Timeout) => Ok(Err(Error::Timeout)),
                Err(error) => Err(error),
            }
        };
        self.retried(retries, course, attempt).await?
    }

    /// The objects whose keys start with `prefix`, up to `max` at a time; `after` is the last page's
    /// [`Page::next`].
    ///
    /// # Errors
    /// The error of the request.
    pub async fn list(&self, prefix: &str, after: Option<String>, max: usize, limits: Limits) -> Result<Page, Error> {
        let own = &self.inner.prefix;
        let prefix = format!("{own}{prefix}");
        self.request(limits, async |course| {
            let mut page = self
                .retried(limits.retries, course, || {
                    self.attempt(self.inner.backend.list(&prefix, after.clone(), max.max(1)))
                })
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
    async fn read(&self, key: &str, consistent: bool, retries: u32, course: &mut Course) -> Result<Object, Error> {
        self.retried(retries, course, || self.attempt(self.inner.backend.get(key, consistent))).await
    }

    async fn retried<T, F>(&self, retries: u32, course: &mut Course, attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        retry::run(retries, course, || self.inner.backend.fetch_credentials(), attempt).await
    }

    /// Runs one request: waits for its turn, and ends it at its deadline.
    async fn request<T>(
        &self,
        limits: Limits,
        work: impl AsyncFnOnce(&mut Course) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut course = Course::default();
        let answer = tokio::time::timeout(limits.timeout, async {
            course = Course::with_turn(self.inner.gate.enter().await?);
            work(&mut course).await
        })
        .await
        .unwrap_or(Err(Error::Timeout));
        self.count(&course);
        answer
    }

    fn count(&self, course: &Course) {
        let counts = &self.inner.counts;
        counts.retries.fetch_add(u64::from(course.retries), Ordering::Relaxed);
        counts.slow_downs.fetch_add(u64::from(course.slow_downs), Ordering::Relaxed);
    }

    /// Sends a request once. One that hangs counts as lost.
    async fn attempt<T>(&self, sending: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.inner.counts.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::timeout(self.inner.attempt_timeout, sending).await.unwrap_or(Err(Error::Timeout))
    }
}

/// Sends a request of the proof. It needs no turn, so that the requests race whatever the limits are. The key is
/// under the store's prefix.
impl Store {
    pub(crate) async fn get_ungated(&self, key: &str, limits: Limits) -> Result<Object, Error> {
        let key = self.key(key)?;
        let mut course = Course::default();
        let answer = self.read(&key, true, limits.retries, &mut course).await;
        self.count(&course);
        answer
    }

    pub(crate) async fn put_ungated(
        &self,
        key: &str,
        body: &Bytes,
        write: &Write,
        limits: Limits,
    ) -> Result<String, Error> {
        let key = self.writable(key)?;
        let mut course = Course::default();
        let answer = self.write_once(&key, body, write, limits.retries, &mut course).await;
        self.count(&course);
        answer
    }

    pub(crate) async fn delete_ungated(&self, key: &str, etag: Option<&str>, limits: Limits) -> Result<(), Error> {
        let key = self.writable(key)?;
        let mut course = Course::default();
        let answer = self.delete_once(&key, etag, limits.retries, &mut course).await;
        self.count(&course);
        answer
    }

    pub(crate) fn are_etags_flipped(&self) -> bool {
        self.inner.backend.etags().is_some_and(Etags::is_flipped)
    }

    pub(crate) fn set_etags_flipped(&self, flipped: bool) {
        if let Some(etags) = self.inner.backend.etags() {
            etags.set_flipped(flipped);
        }
    }
}
