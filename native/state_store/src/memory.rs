//! `memory:`: objects of this process, for tests and trials.
//!
//! `memory:` opens a new store; `memory:NAME` the store of that name, which lives until the last one that opened it closes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;

use crate::object::Target;
use crate::{Condition, Error, Object, ObjectRef, Page};

#[derive(Default)]
struct Objects {
    last: u64,
    by_key: BTreeMap<String, (u64, Bytes)>,
}

#[derive(Default)]
pub(crate) struct Memory {
    objects: Mutex<Objects>,
}

static NAMED: OnceLock<Mutex<HashMap<String, Weak<Memory>>>> = OnceLock::new();

impl Memory {
    pub(crate) fn open(name: &str) -> Arc<Self> {
        if name.is_empty() {
            return Arc::default();
        }
        let mut named = lock(NAMED.get_or_init(Mutex::default));
        named.retain(|_name, memory| memory.strong_count() > 0);
        match named.get(name).and_then(Weak::upgrade) {
            Some(memory) => memory,
            None => {
                let memory = Arc::default();
                named.insert(name.to_owned(), Arc::downgrade(&memory));
                memory
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Result<Object, Error> {
        let objects = lock(&self.objects);
        let (version, body) = objects.by_key.get(key).ok_or(Error::NotFound)?;
        Ok(Object { body: body.clone(), etag: version.to_string() })
    }

    pub(crate) fn put(&self, key: &str, body: Bytes, condition: &Condition) -> Result<String, Error> {
        let mut objects = lock(&self.objects);
        let current = objects.by_key.get(key).map(|(version, _body)| version.to_string());
        check(condition, current.as_deref())?;
        objects.last += 1;
        let version = objects.last;
        objects.by_key.insert(key.to_owned(), (version, body));
        Ok(version.to_string())
    }

    /// Never sent again: it fails for good or succeeds.
    pub(crate) fn delete(&self, key: &str, target: Target<'_>) -> Result<(), Error> {
        let mut objects = lock(&self.objects);
        let (version, _body) = objects.by_key.get(key).ok_or(Error::NotFound)?;
        match target {
            Target::Version(etag) | Target::Unseen(etag) if *etag != version.to_string() => {
                return Err(Error::Conflict);
            }
            _ => {}
        }
        objects.by_key.remove(key);
        Ok(())
    }

    pub(crate) fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Page {
        let objects = lock(&self.objects);
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut listed: Vec<_> = objects
            .by_key
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _object)| key.starts_with(prefix))
            .take(max + 1)
            .map(|(key, (version, _body))| ObjectRef { key: key.clone(), etag: version.to_string() })
            .collect();
        let more = listed.len() > max;
        listed.truncate(max);
        let next = if more { listed.last().map(|object| object.key.clone()) } else { None };
        Page { objects: listed, next }
    }
}

/// Whether `condition` holds, given the current etag.
pub(crate) fn check(condition: &Condition, current: Option<&str>) -> Result<(), Error> {
    let holds = match condition {
        Condition::Always => true,
        Condition::Absent => current.is_none(),
        Condition::Etag(etag) => current == Some(etag),
    };
    if holds { Ok(()) } else { Err(Error::Conflict) }
}

/// Every change under these locks is one insertion or removal, so a panic leaves no partial change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
