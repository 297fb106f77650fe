//! `file:///dir`: objects as files, with real compare-and-swap between all processes of one machine.
//!
//! Guarantees
//! - A write is checked and applied under a file lock that the operating system drops when its holder dies.
//! - Crash-safe: bytes go to a temporary file, that is synced, renamed, and the directory synced. A reader sees the old object
//!   or the new one, also after a power cut.
//! - The etag is the content's hash: two writes of the same bytes are the same version, as with S3's etags.
//!
//! In the directory: `objects/` (see `names` for the files in it), `locks/` (never removed), `incoming/` (temporary files).

mod names;
mod walk;

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ring::digest;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::memory::check;
use crate::object::Target;
use crate::{Condition, Error, Object, ObjectRef, Page};

/// Keys share this many locks. More locks would only mean more files.
const LOCKS: usize = 256;
/// The holder of a lock keeps it for a few milliseconds: two file syncs.
const LOCK_POLL: Duration = Duration::from_micros(500);
/// A temporary file this old was left by a process that died.
const LEFT_BEHIND: Duration = Duration::from_secs(3_600);
/// How much of an object a listing holds in memory at a time, in bytes.
const PART: usize = 64 * 1024;
/// The etag in listings of an object that cannot be read. No version has it.
const UNREADABLE: &str = "unreadable";
/// How many keys a walk for a later page of a listing finds for the pages after it, how long they are kept, and of how
/// many listings.
const AHEAD: usize = 50_000;
const AHEAD_LASTS: Duration = Duration::from_secs(60);
const MOST_AHEAD: usize = 4;

pub(crate) struct Directory {
    root: PathBuf,
    max_bytes: u64,
    /// Writers of this process wait here, in order; only one of them polls the file lock.
    local: Vec<Arc<Mutex<()>>>,
    sync: SyncNames,
    /// Directories whose creation has begun and was not synced, so that a power cut may undo it.
    unsynced: StdMutex<HashSet<PathBuf>>,
    ahead: StdMutex<Kept>,
}

/// What walks have found for pages to come.
#[derive(Default)]
struct Kept {
    /// The latest listings: the prefix, and when the newest one of it began.
    began: Vec<(String, Instant)>,
    ahead: Vec<Ahead>,
}

impl Kept {
    fn begin(&mut self, prefix: &str) {
        self.began.retain(|(of, _)| of != prefix);
        self.ahead.retain(|ahead| ahead.prefix != prefix);
        push(&mut self.began, (prefix.to_owned(), Instant::now()));
    }
}

/// Adds an entry in place of the oldest one.
fn push<T>(entries: &mut Vec<T>, entry: T) {
    if entries.len() == MOST_AHEAD {
        entries.remove(0);
    }
    entries.push(entry);
}

/// What a walk has found for the next page of a listing and those after it.
struct Ahead {
    prefix: String,
    /// The last key of the page before.
    after: String,
    at: Instant,
    keys: VecDeque<String>,
    /// Whether there are keys behind these.
    more: bool,
}

/// Makes a change of names survive a power cut.
type SyncNames = Box<dyn Fn(&Parent) -> io::Result<()> + Send + Sync>;

/// Set when the request was cancelled: a write that has not begun must not begin, and a listing ends.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Directory {
    /// Creates missing directories and removes temporary files of dead processes. For reading only, the directory
    /// must exist and is not changed.
    pub(crate) fn open(root: &Path, max_bytes: u64, read_only: bool) -> Result<Arc<Self>, Error> {
        if read_only {
            fs::read_dir(root).map_err(|error| Error::io("opening the directory", &error))?;
        } else {
            for part in ["objects", "locks", "incoming"] {
                fs::create_dir_all(root.join(part)).map_err(|error| Error::io("creating the directory", &error))?;
            }
            sweep(&root.join("incoming"));
        }
        let local = (0..LOCKS).map(|_| Arc::default()).collect();
        Ok(Arc::new(Self {
            root: root.to_owned(),
            max_bytes,
            local,
            sync: Box::new(Parent::sync),
            unsynced: Default::default(),
            ahead: Default::default(),
        }))
    }

    pub(crate) async fn get(self: &Arc<Self>, key: &str) -> Result<Object, Error> {
        let path = self.path(key)?;
        let directory = Arc::clone(self);
        blocking(move || {
            let body = directory.read(&path)?.ok_or(Error::NotFound)?;
            Ok(Object { etag: etag(&body), body: body.into() })
        })
        .await
    }

    pub(crate) async fn put(self: &Arc<Self>, key: &str, body: Bytes, condition: Condition) -> Result<String, Error> {
        let path = self.path(key)?;
        self.locked(key, move |directory, given_up| {
            directory.write(&path, &body, &condition, given_up)?;
            Ok(etag(&body))
        })
        .await
    }

    pub(crate) async fn delete(self: &Arc<Self>, key: &str, target: Target<'_>) -> Result<(), Error> {
        let path = self.path(key)?;
        let (wanted, removed) = match target {
            Target::Version(etag) | Target::Unseen(etag) => (Some(etag.to_owned()), Arc::default()),
            Target::Found(first) => (None, Arc::clone(first)),
        };
        self.locked(key, move |directory, given_up| {
            let Some(body) = directory.read(&path)? else {
                directory.sync_again(&path)?;
                return Err(Error::NotFound);
            };
            let there = etag(&body);
            if wanted.is_some_and(|wanted| wanted != there) {
                return Err(Error::Conflict);
            }
            // An earlier attempt has removed its version, and this one was written later.
            if removed.get().is_some_and(|removed| *removed != there) {
                return directory.sync_again(&path);
            }
            if given_up.load(Ordering::Acquire) {
                return Err(Error::Timeout);
            }
            let parent = Parent::open(&path)?;
            removed.get_or_init(|| there);
            fs::remove_file(&path).map_err(|error| Error::io("removing the object", &error))?;
            directory.sync_change(&parent)
        })
        .await
    }

    pub(crate) async fn list(self: &Arc<Self>, prefix: &str, after: Option<String>, max: usize) -> Result<Page, Error> {
        let (directory, prefix) = (Arc::clone(self), prefix.to_owned());
        let flag = Arc::new(AtomicBool::new(false));
        let _given_up = GivenUp(Arc::clone(&flag));
        blocking(move || directory.page(&prefix, after.as_deref(), max, &flag)).await
    }

    fn page(&self, prefix: &str, after: Option<&str>, max: usize, given_up: &AtomicBool) -> Result<Page, Error> {
        let (keys, more) = self.keys(prefix, after, max)?;
        let next = if more { keys.last().cloned() } else { None };
        let mut objects = Vec::with_capacity(keys.len());
        for key in keys {
            if given_up.load(Ordering::Acquire) {
                return Err(Error::Timeout);
            }
            let etag = match File::open(self.path(&key)?).and_then(etag_of_file) {
                Ok(etag) => etag,
                // An object that was removed since the walk counts as never listed.
                Err(error) if missing(&error) => continue,
                // Reading the object gives the error.
                Err(_unreadable) => UNREADABLE.to_owned(),
            };
            objects.push(ObjectRef { key, etag });
        }
        self.ensure_there()?;
        Ok(Page { objects, next })
    }

    /// The keys of a page, and whether there are more. A walk reads directories as a whole, however many objects are in
    /// one: with a walk for each page, the time for a listing would grow with the square of their number. A listing has all
    /// objects made before it began, so no page of it comes from an earlier walk.
    fn keys(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<(Vec<String>, bool), Error> {
        let Some(after) = after else {
            self.kept().begin(prefix);
            return walk::keys(&self.objects(), prefix, None, max);
        };
        let mut ahead = match self.take_ahead(prefix, after) {
            Some(ahead) => ahead,
            None => {
                let at = Instant::now();
                let (keys, more) = walk::keys(&self.objects(), prefix, Some(after), max.max(AHEAD))?;
                Ahead { prefix: prefix.to_owned(), after: String::new(), at, keys: keys.into(), more }
            }
        };
        let keys: Vec<String> = ahead.keys.drain(..max.min(ahead.keys.len())).collect();
        let more = ahead.more || !ahead.keys.is_empty();
        if let (Some(last), false) = (keys.last(), ahead.keys.is_empty()) {
            ahead.after.clone_from(last);
            let mut kept = self.kept();
            if kept.began.iter().any(|(of, began)| of == prefix && *began < ahead.at) {
                push(&mut kept.ahead, ahead);
            }
        }
        Ok((keys, more))
    }

    fn take_ahead(&self, prefix: &str, after: &str) -> Option<Ahead> {
        let all = &mut self.kept().ahead;
        all.retain(|ahead| ahead.at.elapsed() < AHEAD_LASTS);
        let found = all.iter().position(|ahead| ahead.prefix == prefix && ahead.after == after)?;
        Some(all.remove(found))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    fn path(&self, key: &str) -> Result<PathBuf, Error> {
        Ok(self.objects().join(names::path(key)?))
    }

    /// Whether there is a store, so that what is not found in it is absent. A volume may not be mounted any more.
    fn ensure_there(&self) -> Result<(), Error> {
        fs::metadata(self.objects()).map(drop).map_err(|error| Error::io("opening the directory", &error))
    }

    fn absent(&self) -> Result<Option<Vec<u8>>, Error> {
        self.ensure_there().map(|()| None)
    }

    /// Runs `work` while no other process and no other task writes the key.
    async fn locked<T: Send + 'static>(
        self: &Arc<Self>,
        key: &str,
        work: impl FnOnce(&Self, &AtomicBool) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let number = lock_of(key);
        let local: Option<OwnedMutexGuard<()>> = match self.local.get(number) {
            Some(lock) => Some(Arc::clone(lock).lock_owned().await),
            None => None,
        };
        let flag = Arc::new(AtomicBool::new(false));
        let _given_up = GivenUp(Arc::clone(&flag));
        let directory = Arc::clone(self);
        blocking(move || {
            // The thread owns both locks: it may outlive the request, and no other writer may run until it ends.
            let _local = local;
            let _lock = directory.lock(number, &flag)?;
            work(&directory, &flag)
        })
        .await
    }

    fn lock(&self, number: usize, given_up: &AtomicBool) -> Result<File, Error> {
        let fail = |error: &io::Error| Error::io("locking", error);
        let path = self.root.join("locks").join(format!("{number:02x}"));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(|e| fail(&e))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if given_up.load(Ordering::Acquire) => return Err(Error::Timeout),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::Error(error)) => return Err(fail(&error)),
            }
        }
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        let fail = |error: io::Error| Error::io("reading the object", &error);
        let bytes = match fs::metadata(path) {
            Ok(found) => found.len(),
            Err(error) if missing(&error) => return self.absent(),
            Err(error) => return Err(fail(error)),
        };
        if bytes > self.max_bytes {
            return Err(Error::TooLarge { bytes, limit: self.max_bytes });
        }
        match fs::read(path) {
            Ok(body) => Ok(Some(body)),
            Err(error) if missing(&error) => self.absent(),
            Err(error) => Err(fail(error)),
        }
    }

    /// The condition is checked last, so a disk without room refuses every write as full.
    fn write(&self, path: &Path, body: &[u8], condition: &Condition, given_up: &AtomicBool) -> Result<(), Error> {
        let temporary = self.root.join("incoming").join(temporary_name());
        let written = write_through(&temporary, body).and_then(|()| {
            if *condition != Condition::Always {
                let current = self.read(path)?.map(|body| etag(&body));
                if let Err(refused) = check(condition, current.as_deref()) {
                    if current == Some(etag(body)) {
                        self.sync_again(path)?;
                    }
                    return Err(refused);
                }
            }
            self.publish(&temporary, path, given_up)
        });
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn publish(&self, temporary: &Path, path: &Path, given_up: &AtomicBool) -> Result<(), Error> {
        if let Some(parent) = path.parent() {
            self.make(parent)?;
        }
        let parent = Parent::open(path)?;
        if given_up.load(Ordering::Acquire) {
            return Err(Error::Timeout);
        }
        fs::rename(temporary, path).map_err(|error| Error::io("naming the object", &error))?;
        self.sync_change(&parent)
    }

    /// After an error the change is there all the same, so the request is sent again: it then finds its own change.
    fn sync_change(&self, parent: &Parent) -> Result<(), Error> {
        (self.sync)(parent).map_err(|error| Error::Io {
            action: "syncing a directory",
            reason: error.to_string(),
            applied: true,
        })
    }

    /// For an object that is already as the request wants it: an earlier attempt may have failed to sync that.
    fn sync_again(&self, path: &Path) -> Result<(), Error> {
        match Parent::open(path) {
            Ok(parent) => self.sync_change(&parent),
            // There is no such directory, or nothing can be opened: then no attempt came this far.
            Err(_absent) => Ok(()),
        }
    }

    /// Creates a directory below `objects` and syncs its parent, so that the directory survives a power cut. One that
    /// another writer has created, but not synced, is synced here as well: that writer may fail.
    fn make(&self, directory: &Path) -> Result<(), Error> {
        if directory == self.objects() || directory.is_dir() && !self.unsynced().contains(directory) {
            return Ok(());
        }
        if let Some(parent) = directory.parent() {
            self.make(parent)?;
        }
        let parent = Parent::open(directory)?;
        self.unsynced().insert(directory.to_owned());
        let made = match fs::create_dir(directory) {
            Ok(()) => (self.sync)(&parent).inspect_err(|_unsynced| {
                // The next write, maybe of another process, makes and syncs it again.
                let _ = fs::remove_dir(directory);
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (self.sync)(&parent),
            Err(error) => Err(error),
        };
        made.map_err(|error| Error::io("creating a directory", &error))?;
        self.unsynced().remove(directory);
        Ok(())
    }

    fn unsynced(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_through(temporary: &Path, body: &[u8]) -> Result<(), Error> {
    let fail = |action| move |error: io::Error| Error::io(action, &error);
    // Fails if the file exists: it belongs to another writer.
    let mut file = File::create_new(temporary).map_err(fail("creating a temporary file"))?;
    file.write_all(body).map_err(fail("writing the object"))?;
    file.sync_data().map_err(fail("syncing the object"))
}

/// The directory in which a name is about to change. It is opened before the change: otherwise, without a
/// free file descriptor, a change would be made and then reported as failed.
struct Parent(#[cfg(unix)] File);

impl Parent {
    #[cfg(unix)]
    fn open(path: &Path) -> Result<Self, Error> {
        let opened = File::open(path.parent().unwrap_or(path));
        opened.map(Self).map_err(|error| Error::io("opening a directory", &error))
    }

    #[cfg(unix)]
    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// Windows keeps names in its journal and has no such call.
    #[cfg(not(unix))]
    fn open(_path: &Path) -> Result<Self, Error> {
        Ok(Self())
    }

    #[cfg(not(unix))]
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A unique name. Another store of this process may use the same directory, and so may a process with the same
/// process id in another container.
fn temporary_name() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Best effort: a file that cannot be removed is harmless.
fn sweep(incoming: &Path) {
    let Ok(entries) = fs::read_dir(incoming) else { return };
    let now = SystemTime::now();
    for entry in entries.flatten() {
        let age =
            entry.metadata().and_then(|found| found.modified()).map(|at| now.duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age > LEFT_BEHIND) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn etag(body: &[u8]) -> String {
    etag_of(&digest::digest(&digest::SHA256, body))
}

/// The same for a file of any size.
fn etag_of_file(mut file: File) -> io::Result<String> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut part = vec![0; PART];
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(etag_of(&hash.finish())),
            Ok(bytes) => hash.update(part.get(..bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn etag_of(digest: &digest::Digest) -> String {
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn lock_of(key: &str) -> usize {
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    usize::from(digest.as_ref().first().copied().unwrap_or_default()) % LOCKS
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_panicked) => Err(Error::Protocol { reason: "a file operation panicked" }),
    }
}

#[cfg(test)]
mod tests;
