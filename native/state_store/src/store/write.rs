//! Writes under a condition.

use bytes::Bytes;

use super::Store;
use crate::retry::{self, Course};
use crate::{Condition, Error, Readback, Write, tombstone};

/// The result of a write.
enum Met {
    /// Applied: the new etag.
    Nothing(String),
    /// Refused, because a deletion is in progress.
    Tombstone,
}

impl Store {
    /// Writes an object and returns its new etag. Waits for a deletion in progress.
    pub(super) async fn write(
        &self,
        key: &str,
        body: &Bytes,
        write: &Write,
        course: &mut Course,
    ) -> Result<String, Error> {
        let mut pauses = retry::pauses(course.allowed);
        loop {
            match self.write_or_meet(key, body, write, course).await? {
                Met::Nothing(etag) => return Ok(etag),
                // A deletion is in progress, which takes a round trip.
                Met::Tombstone => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(Error::Contended),
                },
            }
        }
    }

    async fn write_or_meet(&self, key: &str, body: &Bytes, write: &Write, course: &mut Course) -> Result<Met, Error> {
        let written = self.put_retried(key, body, &write.condition, course).await;
        let refused = written == Err(Error::Conflict) && write.condition != Condition::Always;
        let read_back = write.readback == Readback::Always || course.unsure;
        // A claim may have been refused because of a tombstone, which does not count as an object.
        let claims = write.condition == Condition::Absent && self.inner.backend.needs_tombstones();
        if !refused || !(read_back || claims) {
            return written.map(Met::Nothing);
        }
        let lost = course.unsure;
        match self.read(key, true, course).await {
            Ok(there) if there.body == *body && read_back => {
                self.counts().readbacks += 1;
                Ok(Met::Nothing(there.etag))
            }
            Ok(there) if claims && tombstone::is_abandoned(&there.body) => {
                let over = Condition::Etag(there.etag);
                match self.put_retried(key, body, &over, course).await {
                    // Another claim was faster, or this one's response was lost: the next read shows which.
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

    pub(super) async fn put_retried(
        &self,
        key: &str,
        body: &Bytes,
        condition: &Condition,
        course: &mut Course,
    ) -> Result<String, Error> {
        self.retried(course, || self.attempt(self.inner.backend.put(key, body.clone(), condition))).await
    }
}
