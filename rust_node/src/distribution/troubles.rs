//! The nodes that are not connected, each with its cause, for `status`, `/readyz`, the metric and the log.
//!
//! Guarantee: each pair of node and cause is logged once, and again after [`AGAIN`] at the earliest. The name
//! of a node that dials this one is not proven. Such nodes fill at most [`STRANGERS`] entries and cause at
//! most that many warnings in that time, all their causes together.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::cause::Cause;
use crate::metrics::{Kind, Metrics};

/// The shortest time between two warnings for one node and cause.
const AGAIN: Duration = Duration::from_secs(300);
/// A failure that has not been repeated for this long is over: a node is dialled at least every ten seconds.
const OVER: Duration = Duration::from_secs(60);
/// How long a node that was discovered through others may be unreachable before a warning. It may be joining
/// or leaving the cluster.
const GRACE: Duration = Duration::from_secs(30);
/// Entries for nodes that this node dials.
const DIALLED: usize = 2_000;
/// Entries for nodes that dial this one.
const STRANGERS: usize = 64;

/// Why the node should be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Configured,
    /// Another node or DNS has named the node.
    Found,
    /// The node dialled this one. It may be any program.
    Stranger,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// The name of the node, or the address from which it dialled.
    pub name: String,
    /// [`Cause::label`].
    pub cause: String,
    pub error: String,
    pub advice: String,
    pub since_s: u64,
    pub times: u64,
}

/// All nodes that are not connected. Clones share the data.
#[derive(Debug, Clone, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<String, Trouble>>>);

#[derive(Debug)]
struct Trouble {
    stranger: bool,
    cause: Cause,
    error: String,
    since: Instant,
    last: Instant,
    times: u64,
    /// When each cause was last logged, and whether for a node that dialled this one.
    told: Vec<(Cause, Instant, bool)>,
    /// The node has connected since the last failure.
    over: bool,
}

impl Trouble {
    fn is_over(&self, now: Instant) -> bool {
        self.over || now - self.last >= OVER
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.is_over(now) && self.told.iter().all(|(_, at, _)| now - *at >= AGAIN)
    }

    /// Whether the cause should be logged now.
    fn tell(&mut self, now: Instant, stranger: bool) -> bool {
        self.told.retain(|(_, at, _)| now - *at < AGAIN);
        let is_due = self.told.iter().all(|(cause, ..)| *cause != self.cause);
        if is_due {
            self.told.push((self.cause, now, stranger));
        }
        is_due
    }

    /// How many warnings nodes that dialled this one have caused under this name.
    fn told_of_strangers(&self, now: Instant) -> usize {
        self.told.iter().filter(|(_, at, stranger)| *stranger && now - *at < AGAIN).count()
    }
}

impl Troubles {
    /// Records a failed connection. Logs it, unless it was logged a short time ago.
    pub(super) fn note(&self, name: &str, cause: Cause, error: &dyn Display, origin: Origin) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stranger = origin == Origin::Stranger;
        if !all.contains_key(name) {
            all.retain(|_, trouble| !trouble.is_forgotten(now));
            let most = if stranger { STRANGERS } else { DIALLED };
            if all.values().filter(|trouble| trouble.stranger == stranger).count() >= most {
                return;
            }
            let error = String::new();
            let trouble = Trouble { stranger, cause, error, since: now, last: now, times: 0, told: vec![], over: true };
            all.insert(name.to_owned(), trouble);
        }
        let is_enough =
            stranger && all.values().map(|trouble| trouble.told_of_strangers(now)).sum::<usize>() >= STRANGERS;
        let Some(trouble) = all.get_mut(name) else { return };
        if trouble.is_over(now) || trouble.cause != cause {
            (trouble.since, trouble.times, trouble.over) = (now, 0, false);
        }
        (trouble.cause, trouble.error, trouble.last) = (cause, error.to_string(), now);
        trouble.times += 1;
        let is_early = origin == Origin::Found && !cause.is_misconfiguration() && now - trouble.since < GRACE;
        if !is_early && !is_enough && trouble.tell(now, stranger) {
            let again_s = AGAIN.as_secs();
            warn!(peer = name, cause = cause.label(), %error, again_s, "not connected: {}", cause.advice());
        } else {
            debug!(peer = name, cause = cause.label(), %error, "not connected");
        }
    }

    /// Records that the node is connected.
    pub(super) fn clear(&self, name: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trouble) = all.get_mut(name) {
            trouble.over = true;
        }
    }

    pub fn list(&self) -> Vec<Unreachable> {
        let now = Instant::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = all.iter().filter(|(_, trouble)| !trouble.is_over(now));
        let unreachable = |(name, trouble): (&String, &Trouble)| Unreachable {
            name: name.clone(),
            cause: trouble.cause.label().to_owned(),
            error: trouble.error.clone(),
            advice: trouble.cause.advice().to_owned(),
            since_s: (now - trouble.since).as_secs(),
            times: trouble.times,
        };
        current.map(unreachable).collect()
    }

    pub fn count(&self, metrics: &Metrics) {
        let now = Instant::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &cause in Cause::ALL {
            let of_it = all.values().filter(|trouble| trouble.cause == cause && !trouble.is_over(now)).count();
            let gauge = metrics.unreachable.get_or_create(&Kind(cause.label()));
            gauge.set(i64::try_from(of_it).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    impl Troubles {
        /// For each cause of a node, the seconds since it was last logged.
        fn told(&self, name: &str) -> Vec<(Cause, u64)> {
            let all = self.0.lock().expect("not poisoned");
            let told = all.get(name).map(|trouble| trouble.told.clone()).unwrap_or_default();
            told.iter().map(|(cause, at, _)| (*cause, at.elapsed().as_secs())).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_cause_is_logged_once_in_five_minutes_and_a_connection_clears_the_node() {
        let troubles = Troubles::default();
        let note = |cause| troubles.note("a@h", cause, &"it failed", Origin::Configured);
        for _ in 0..10 {
            note(Cause::Cookie);
            advance(Duration::from_secs(10)).await;
        }
        assert_eq!(troubles.told("a@h"), [(Cause::Cookie, 100)]);
        note(Cause::Epmd);
        note(Cause::Cookie);
        assert_eq!(troubles.told("a@h"), [(Cause::Cookie, 100), (Cause::Epmd, 0)]);
        let listed = troubles.list();
        assert_eq!((listed.len(), &*listed[0].cause, listed[0].times), (1, "cookie", 1));
        troubles.clear("a@h");
        assert_eq!(troubles.list(), []);
        note(Cause::Cookie);
        assert_eq!(troubles.told("a@h").len(), 2, "a connection does not make it news again");
        advance(AGAIN).await;
        note(Cause::Cookie);
        assert_eq!(troubles.told("a@h"), [(Cause::Cookie, 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_discovered_node_causes_a_warning_only_when_it_stays_away() {
        let troubles = Troubles::default();
        let fail = async |seconds: u64| {
            for _ in 0..seconds {
                troubles.note("a@h", Cause::UnknownName, &"unknown", Origin::Found);
                advance(Duration::from_secs(1)).await;
            }
        };
        fail(20).await;
        assert_eq!(troubles.told("a@h"), []);
        advance(OVER).await;
        assert_eq!(troubles.list(), [], "it was not tried again");
        fail(20).await;
        assert_eq!(troubles.told("a@h"), [], "another time");
        fail(20).await;
        assert_eq!(troubles.told("a@h").len(), 1);
        troubles.note("b@h", Cause::Cookie, &"wrong", Origin::Found);
        assert_eq!(troubles.told("b@h").len(), 1, "waiting does not help");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_fill_a_bounded_table_and_leave_room_for_dialled_nodes() {
        let troubles = Troubles::default();
        for number in 0..10_000 {
            troubles.note(&format!("n{number}@h"), Cause::Cookie, &"wrong", Origin::Stranger);
        }
        troubles.note("a@h", Cause::Cookie, &"wrong", Origin::Configured);
        assert_eq!(troubles.list().len(), STRANGERS + 1);
        let metrics = Metrics::default();
        troubles.count(&metrics);
        assert!(metrics.render().contains("durable_handoff_unreachable{kind=\"cookie\"} 65"), "{}", metrics.render());
        advance(AGAIN).await;
        troubles.note("new@h", Cause::Cookie, &"wrong", Origin::Stranger);
        assert_eq!(troubles.list().len(), 1);
        troubles.count(&metrics);
        assert!(metrics.render().contains("durable_handoff_unreachable{kind=\"cookie\"} 1"), "{}", metrics.render());
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_cause_a_bounded_number_of_warnings_whatever_goes_wrong_with_them() {
        let troubles = Troubles::default();
        let warnings = || (0..100).map(|number| troubles.told(&format!("n{number}@h")).len()).sum::<usize>();
        let fail = |origin| {
            for cause in [Cause::Cookie, Cause::NameKind, Cause::Tls, Cause::Certificate] {
                (0..100).for_each(|number| troubles.note(&format!("n{number}@h"), cause, &"wrong", origin));
            }
        };
        (0..10).for_each(|number| troubles.note(&format!("n{number}@h"), Cause::Epmd, &"down", Origin::Configured));
        fail(Origin::Stranger);
        assert_eq!(warnings(), 10 + STRANGERS);
        advance(AGAIN).await;
        fail(Origin::Stranger);
        assert_eq!(warnings(), STRANGERS);
        troubles.note("n0@h", Cause::Epmd, &"down", Origin::Configured);
        assert_eq!(warnings(), STRANGERS + 1, "nodes that this one dials do not count");
    }
}
