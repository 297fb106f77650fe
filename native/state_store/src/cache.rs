//! Answers the first read after a write from memory.
//!
//! Guarantees
//! - The cached object is the newest version that this process knows: a write or a deletion removes the key when it
//!   begins, and overlapping changes of one key cache nothing, whatever the order of their responses.
//! - It is used once, within a few seconds. If another node has written meanwhile, it is outdated. The next write
//!   then has an outdated etag and is refused.
//! - Bounded in bytes; the oldest objects are removed first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Object;

pub(crate) struct Cache {
    max_bytes: usize,
    lasts: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_key: HashMap<String, Entry>,
    /// Keys by age, with the number of their entry. A key whose entry was removed or replaced is skipped.
    ages: VecDeque<(u64, String)>,
    bytes: usize,
    numbers: u64,
    /// Keys with changes in flight.
    changing: HashMap<String, Changes>,
}

#[derive(Default)]
struct Changes {
    count: usize,
    overlap: bool,
}

/// A write or a deletion in flight.
pub(crate) struct Change<'a> {
    cache: &'a Cache,
    key: &'a str,
}

struct Entry {
    number: u64,
    at: Instant,
    object: Object,
}

impl Cache {
    pub(crate) fn new(max_bytes: usize, lasts: Duration) -> Self {
        Self { max_bytes, lasts, kept: Mutex::default() }
    }

    /// Held until the change has ended, whatever its result.
    pub(crate) fn change<'a>(&'a self, key: &'a str) -> Change<'a> {
        let mut kept = self.lock();
        kept.forget(key);
        let changes = kept.changing.entry(key.to_owned()).or_default();
        changes.count += 1;
        changes.overlap |= changes.count > 1;
        Change { cache: self, key }
    }

    /// The object, if this process wrote it recently and has not read it since.
    pub(crate) fn take(&self, key: &str) -> Option<Object> {
        let entry = self.lock().forget(key)?;
        (entry.at.elapsed() <= self.lasts).then_some(entry.object)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change<'_> {
    /// The write succeeded; the next read is answered from memory.
    pub(crate) fn wrote(self, object: Object) {
        let mut kept = self.cache.lock();
        let overlap = kept.changing.get(self.key).is_none_or(|changes| changes.overlap);
        let bytes = size(self.key, &object);
        if overlap || bytes > self.cache.max_bytes || self.cache.lasts.is_zero() {
            return;
        }
        kept.numbers += 1;
        let number = kept.numbers;
        kept.bytes += bytes;
        kept.by_key.insert(self.key.to_owned(), Entry { number, at: Instant::now(), object });
        kept.ages.push_back((number, self.key.to_owned()));
        kept.shrink(self.cache.max_bytes, self.cache.lasts);
        kept.compact();
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut kept = self.cache.lock();
        let Some(changes) = kept.changing.get_mut(self.key) else { return };
        changes.count -= 1;
        if changes.count == 0 {
            kept.changing.remove(self.key);
        }
    }
}

impl Kept {
    fn forget(&mut self, key: &str) -> Option<Entry> {
        let entry = self.by_key.remove(key)?;
        self.bytes = self.bytes.saturating_sub(size(key, &entry.object));
        Some(entry)
    }

    fn shrink(&mut self, max_bytes: usize, lasts: Duration) {
        while let Some((number, key)) = self.ages.front() {
            let keep = self.by_key.get(key).map(|entry| (entry.number == *number, entry.at.elapsed() <= lasts));
            match keep {
                Some((true, true)) if self.bytes <= max_bytes => return,
                Some((true, _)) => {
                    let key = key.clone();
                    self.forget(&key);
                }
                _gone_or_newer => {}
            }
            self.ages.pop_front();
        }
    }

    /// Removes the ages of entries that are gone. They would accumulate behind an entry that stays.
    fn compact(&mut self) {
        if self.ages.len() > 2 * self.by_key.len() + 1 {
            let by_key = &self.by_key;
            self.ages.retain(|(number, key)| by_key.get(key).is_some_and(|entry| entry.number == *number));
        }
    }
}

fn size(key: &str, object: &Object) -> usize {
    key.len() + object.etag.len() + object.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bytes: usize) -> Object {
        Object { body: vec![0; bytes].into(), etag: String::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cached_object_is_used_once_and_only_for_a_short_time() {
        let cache = Cache::new(100, Duration::from_secs(5));
        cache.change("k").wrote(object(1));
        assert_eq!(cache.take("k"), Some(object(1)));
        assert_eq!(cache.take("k"), None);
        cache.change("k").wrote(object(1));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(cache.take("k"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn overlapping_changes_of_a_key_cache_nothing_in_any_order() {
        let cache = Cache::new(100, Duration::from_secs(5));
        let (write, deletion) = (cache.change("k"), cache.change("k"));
        drop(deletion);
        write.wrote(object(1));
        assert_eq!(cache.take("k"), None, "it may be deleted");
        let (first, second) = (cache.change("k"), cache.change("k"));
        second.wrote(object(2));
        first.wrote(object(1));
        assert_eq!(cache.take("k"), None, "either may be the newest");
        cache.change("k").wrote(object(3));
        assert_eq!(cache.take("k"), Some(object(3)));
        assert!(cache.lock().changing.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_begins_or_is_cancelled_removes_the_key() {
        let cache = Cache::new(100, Duration::from_secs(5));
        cache.change("k").wrote(object(1));
        let change = cache.change("k");
        assert_eq!(cache.take("k"), None);
        drop(change);
        assert_eq!(cache.take("k"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_objects_are_removed_and_the_rest_stays() {
        let cache = Cache::new(100, Duration::from_secs(5));
        for key in ["a", "b", "a", "c"] {
            cache.change(key).wrote(object(40));
        }
        assert_eq!(cache.take("b"), None);
        assert_eq!(cache.take("a"), Some(object(40)));
        assert_eq!(cache.take("c"), Some(object(40)));
        cache.change("large").wrote(object(101));
        assert_eq!(cache.take("large"), None);
        assert_eq!(cache.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_writes_of_one_key_leave_nothing_behind() {
        let cache = Cache::new(1_000, Duration::from_secs(60));
        for _ in 0..10_000 {
            cache.change("k").wrote(object(10));
        }
        let kept = cache.lock();
        assert!(kept.ages.len() <= 3 && kept.by_key.len() == 1, "{}", kept.ages.len());
    }
}
