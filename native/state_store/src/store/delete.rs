//! Deletions, also where the store's own conditional deletion cannot be relied on: see `tombstone`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::Store;
use crate::object::Target;
use crate::retry::Course;
use crate::tombstone::{self, Tombstone};
use crate::{Condition, Error};

impl Store {
    /// See [`Store::delete`].
    pub(super) async fn erase(&self, key: &str, etag: Option<&str>, course: &mut Course) -> Result<(), Error> {
        let backend = &self.inner.backend;
        let found = Arc::new(OnceLock::new());
        let target = match etag {
            Some(etag) if backend.needs_tombstones() => {
                let tombstone = Tombstone::new();
                let etag = self.bury(key, etag, &tombstone, course).await?;
                return self.unearth(key, &etag, &tombstone, course).await;
            }
            Some(etag) => Target::Version(etag),
            None => Target::Found(&found),
        };
        match self.retried(course, || self.attempt(backend.delete(key, target))).await {
            // The response to the deletion was lost: the object is absent because this request deleted it.
            Err(Error::NotFound) if course.unsure => Ok(()),
            deleted => deleted,
        }
    }

    /// Overwrites one version of an object with a tombstone. Returns the tombstone's etag.
    async fn bury(&self, key: &str, etag: &str, tombstone: &Tombstone, course: &mut Course) -> Result<String, Error> {
        let condition = Condition::Etag(etag.to_owned());
        match self.put_retried(key, tombstone.body(), &condition, course).await {
            Err(Error::Conflict) => match self.read(key, true, course).await {
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
    async fn unearth(&self, key: &str, etag: &str, tombstone: &Tombstone, course: &mut Course) -> Result<(), Error> {
        let backend = &self.inner.backend;
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
            match self.attempt(backend.delete(key, Target::Unseen(etag))).await {
                // A claim has replaced the tombstone.
                Ok(()) | Err(Error::NotFound | Error::Conflict) => Ok(Ok(())),
                Err(Error::Timeout) => Ok(Err(Error::Timeout)),
                Err(error) => Err(error),
            }
        };
        self.retried(course, attempt).await?
    }
}
