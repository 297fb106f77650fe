//! A store: one backend, its prefix, its gate, and what makes a request whole.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Cache;
use crate::directory::Directory;
use crate::gate::Gate;
use crate::memory::Memory;
use crate::remote::Remote;
use crate::retry::{self, Course};
use crate::{Condition, Error, Limits, Object, ObjectRef, Page, Readback, Settings, Write, key};

/// Where the objects are.
pub(crate) enum Backend {
    Remote(Remote),
    Directory(Arc<Directory>),
    Memory(Arc<Memory>),
}

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
    /// Requests sent, repetitions included.
    pub requests: u64,
    /// Of these, sent again after a failure.
    pub retries: u64,
    /// How often the store asked for fewer requests.
    pub slow_downs: u64,
    /// Conditional writes that were refused and turned out to be applied.
    pub readbacks: u64,
    /// Reads that were answered with what was just written.
    pub cached: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a store without asking it anything: whether it answers is what [`Store::check`] tells.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a URL or an option that cannot be, [`Error::Io`] for a directory that cannot be made.
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

    /// Whether the store answers, the bucket is there and the credentials are good: a listing of at most one key.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&self, limits: Limits) -> Result<(), Error> {
        self.list("", None, 1, limits).await.map(|_page| ())
    }

    /// Reads an object. `consistent` asks for the newest version where a store could answer with an older one. The read after a
    /// write with [`Write::keep`] costs no request.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what went wrong.
    pub async fn get(&self, key: &str, consistent: bool, limits: Limits) -> Result<Object, Error> {
        let key = self.key(key)?;
        if let Some(object) = self.inner.cache.take(&key) {
            self.inner.counts.cached.fetch_add(1, Ordering::Relaxed);
            return Ok(object);
        }
        self.request(limits, async |course| self.read(&key, consistent, limits.retries, course).await).await
    }

    /// Writes an object under a condition and gives its new etag.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the condition does not hold, or what went wrong. Where [`Error::is_unsure`], it may be
    /// written.
    pub async fn put(&self, key: &str, body: Bytes, write: &Write, limits: Limits) -> Result<String, Error> {
        let key = self.writable(key)?;
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if bytes > self.inner.max_bytes {
            return Err(Error::TooLarge { bytes, limit: self.inner.max_bytes });
        }
        // What happens to the object from here on is known only when the answer is there.
        let change = self.inner.cache.change(&key);
        let etag = self.write(&key, &body, write, limits).await?;
        if write.keep {
            change.wrote(Object { body, etag: etag.clone() });
        }
        Ok(etag)
    }

    async fn write(&self, key: &str, body: &Bytes, write: &Write, limits: Limits) -> Result<String, Error> {
        self.request(limits, async |course| {
            let written = retry::run(limits.retries, course, || {
                self.attempt(self.inner.backend.put(key, body.clone(), &write.condition))
            })
            .await;
            let refused = written == Err(Error::Conflict) && write.condition != Condition::Always;
            if !refused || (write.readback == Readback::AfterLostAnswer && !course.unsure) {
                return written;
            }
            let lost = course.unsure;
            match self.read(key, true, limits.retries, course).await {
                Ok(there) if there.body == *body => {
                    self.inner.counts.readbacks.fetch_add(1, Ordering::Relaxed);
                    Ok(there.etag)
                }
                // Nobody knows whether it was applied, and the caller must not be told that it was not.
                Err(error) if lost && error != Error::NotFound => Err(error),
                _other => Err(Error::Conflict),
            }
        })
        .await
    }

    /// Deletes an object; with an etag only this version of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`], or what went wrong.
    pub async fn delete(&self, key: &str, etag: Option<String>, limits: Limits) -> Result<(), Error> {
        let key = self.writable(key)?;
        let _change = self.inner.cache.change(&key);
        let condition = etag.map_or(Condition::Always, Condition::Etag);
        self.request(limits, async |course| {
            let deleted =
                retry::run(limits.retries, course, || self.attempt(self.inner.backend.delete(&key, &condition))).await;
            match deleted {
                // The answer to the deletion was lost: it is not there because we deleted it.
                Err(Error::NotFound) if course.unsure => Ok(()),
                deleted => deleted,
            }
        })
        .await
    }

    /// The objects whose keys start with `prefix`, up to `max` at a time; `after` is the last page's [`Page::next`].
    ///
    /// # Errors
    /// What went wrong.
    pub async fn list(&self, prefix: &str, after: Option<String>, max: usize, limits: Limits) -> Result<Page, Error> {
        let own = &self.inner.prefix;
        let prefix = format!("{own}{prefix}");
        self.request(limits, async |course| {
            let mut page = retry::run(limits.retries, course, || {
                self.attempt(self.inner.backend.list(&prefix, after.clone(), max.max(1)))
            })
            .await?;
            page.objects = page
                .objects
                .into_iter()
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

    async fn read(&self, key: &str, consistent: bool, retries: u32, course: &mut Course) -> Result<Object, Error> {
        retry::run(retries, course, || self.attempt(self.inner.backend.get(key, consistent))).await
    }

    /// One request with its turn, within its time.
    async fn request<T>(
        &self,
        limits: Limits,
        work: impl AsyncFnOnce(&mut Course) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut course = Course::default();
        let answer = tokio::time::timeout(limits.timeout, async {
            let _turn = self.inner.gate.enter().await?;
            work(&mut course).await
        })
        .await
        .unwrap_or(Err(Error::Timeout));
        let counts = &self.inner.counts;
        counts.retries.fetch_add(u64::from(course.retries), Ordering::Relaxed);
        counts.slow_downs.fetch_add(u64::from(course.slow_downs), Ordering::Relaxed);
        answer
    }

    /// One sending of a request. One that hangs is as good as lost.
    async fn attempt<T>(&self, sending: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.inner.counts.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::timeout(self.inner.attempt_timeout, sending).await.unwrap_or(Err(Error::Timeout))
    }
}

impl Backend {
    async fn get(&self, key: &str, consistent: bool) -> Result<Object, Error> {
        match self {
            Self::Remote(remote) => remote.get(key, consistent).await,
            Self::Directory(directory) => directory.get(key).await,
            Self::Memory(memory) => memory.get(key),
        }
    }

    async fn put(&self, key: &str, body: Bytes, condition: &Condition) -> Result<String, Error> {
        match self {
            Self::Remote(remote) => remote.put(key, body, condition).await,
            Self::Directory(directory) => directory.put(key, body, condition.clone()).await,
            Self::Memory(memory) => memory.put(key, body, condition),
        }
    }

    async fn delete(&self, key: &str, condition: &Condition) -> Result<(), Error> {
        match self {
            Self::Remote(remote) => remote.delete(key, condition).await,
            Self::Directory(directory) => directory.delete(key, condition.clone()).await,
            Self::Memory(memory) => memory.delete(key, condition),
        }
    }

    async fn list(&self, prefix: &str, after: Option<String>, max: usize) -> Result<Page, Error> {
        match self {
            Self::Remote(remote) => remote.list(prefix, after, max).await,
            Self::Directory(directory) => directory.list(prefix, after, max).await,
            Self::Memory(memory) => Ok(memory.list(prefix, after.as_deref(), max)),
        }
    }
}
