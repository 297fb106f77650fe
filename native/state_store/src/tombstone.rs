//! Deleting one version of an object where the store's own conditional deletion cannot be relied on.
//!
//! On some S3 servers a write and a conditional deletion of the same version can both succeed (on Ceph in half of all
//! races), and some ignore the condition. Conditional writes have been proven to work, so a deletion starts with one:
//! it overwrites the version with a tombstone under its etag, which only one writer can do. Then it deletes the
//! tombstone.
//!
//! Guarantees
//! - A write that was acknowledged is never deleted by a deletion of another version.
//! - A tombstone reads as an absent object. Only a claim may overwrite it, and only when its writer has not deleted it
//!   within a minute. Two machines measure that minute, so their clocks must not differ by more than half of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::Instant;

const START: &[u8] = b"{\"durable_handoff_deleted\":";
const MAX_BYTES: usize = 96;
/// Twice as long as the writer of a tombstone tries to delete it.
const ABANDONED: Duration = Duration::from_secs(60);

/// A new tombstone with unique content.
pub(crate) struct Tombstone {
    body: Bytes,
    made: Instant,
}

impl Tombstone {
    pub(crate) fn new() -> Self {
        let mut body = START.to_vec();
        body.extend_from_slice(format!("{},\"id\":\"{}\"}}", now().as_millis(), crate::key::nonce()).as_bytes());
        Self { body: body.into(), made: Instant::now() }
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether others may soon treat the tombstone as abandoned. Its writer must no longer delete it then.
    pub(crate) fn is_old(&self) -> bool {
        self.made.elapsed() > ABANDONED / 2
    }
}

pub(crate) fn is(body: &[u8]) -> bool {
    body.len() <= MAX_BYTES && body.starts_with(START)
}

/// Whether its writer has stopped trying to delete it.
pub(crate) fn is_abandoned(body: &[u8]) -> bool {
    is(body) && written(body).is_none_or(|written| now().saturating_sub(written) > ABANDONED)
}

fn written(body: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(body.strip_prefix(START)?).ok()?;
    let digits = text.split_once(',')?.0;
    Some(Duration::from_millis(digits.parse().ok()?))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_recognised_by_its_bytes_and_no_state_is_mistaken_for_one() {
        let tombstone = Tombstone::new();
        assert!(is(tombstone.body()) && !is_abandoned(tombstone.body()), "{:?}", tombstone.body());
        assert_ne!(tombstone.body(), Tombstone::new().body());
        for body in ["", "{}", r#"{"vsn":1,"state":{},"meta":"g"}"#, r#"{"durable_handoff":1}"#] {
            assert!(!is(body.as_bytes()), "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tombstone_is_no_longer_deleted_long_before_it_is_abandoned() {
        let tombstone = Tombstone::new();
        assert!(!tombstone.is_old());
        tokio::time::advance(ABANDONED / 2 + Duration::from_millis(1)).await;
        assert!(tombstone.is_old());
    }

    #[test]
    fn a_tombstone_of_a_writer_that_died_is_abandoned_after_a_minute() {
        let old = (now() - Duration::from_secs(61)).as_millis();
        assert!(is_abandoned(format!("{{\"durable_handoff_deleted\":{old},\"id\":\"x\"}}").as_bytes()));
        assert!(is_abandoned(b"{\"durable_handoff_deleted\":?"));
    }
}
