//! Remembers which errors of which peer were logged recently.
//!
//! Guarantee: an error that a peer repeats is logged once in [`AGAIN`], with the number of repetitions that
//! were not logged. At most [`MOST`] errors are remembered; others are not logged.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

const AGAIN: Duration = Duration::from_secs(300);
/// A few for each possible peer.
const MOST: usize = 4_000;

/// The shortest time between two searches for old entries.
const SEARCH_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Repeats {
    logged: BTreeMap<(String, &'static str), Last>,
    searched: Option<Instant>,
}

#[derive(Debug)]
struct Last {
    logged: Instant,
    unlogged: u64,
}

impl Repeats {
    /// Whether to log an error now. If so, returns how often it was repeated since the last log line.
    pub(super) fn note(&mut self, peer: &str, kind: &'static str) -> Option<u64> {
        let now = Instant::now();
        let key = (peer.to_owned(), kind);
        if let Some(last) = self.logged.get_mut(&key) {
            if now - last.logged < AGAIN {
                last.unlogged = last.unlogged.saturating_add(1);
                return None;
            }
            last.logged = now;
            return Some(std::mem::take(&mut last.unlogged));
        }
        let is_full = self.logged.len() >= MOST;
        if is_full && self.searched.is_none_or(|at| now - at >= SEARCH_EVERY) {
            self.searched = Some(now);
            self.logged.retain(|_, last| now - last.logged < AGAIN);
        }
        if self.logged.len() >= MOST {
            return None;
        }
        self.logged.insert(key, Last { logged: now, unlogged: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mistake_that_is_repeated_is_logged_again_after_a_while_with_its_count() {
        let mut repeats = Repeats::default();
        let noted: Vec<_> = (0..3).map(|_| repeats.note("a@h", "kind")).collect();
        assert_eq!(noted, [Some(0), None, None]);
        assert_eq!((repeats.note("a@h", "field"), repeats.note("b@h", "kind")), (Some(0), Some(0)));
        advance(AGAIN).await;
        assert_eq!((repeats.note("a@h", "kind"), repeats.note("a@h", "kind")), (Some(2), None));
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_new_names_fill_a_bounded_table() {
        let mut repeats = Repeats::default();
        let logged = (0..10 * MOST).filter(|number| repeats.note(&format!("n{number}@h"), "kind").is_some()).count();
        assert_eq!((logged, repeats.logged.len()), (MOST, MOST));
        advance(AGAIN).await;
        assert_eq!((repeats.note("new@h", "kind"), repeats.logged.len()), (Some(0), 1));
    }
}
