//! When a failed request is sent again.
//!
//! Guarantee: only retryable errors ([`Error::is_retryable`]) are retried, at most as often as asked for. Pauses grow,
//! have jitter, and are never shorter than what the store asked for. The caller's deadline ends a pause too.
//!
//! Three kinds of failure do not count as failures of the store and have their own pauses (none with `retries: 0`):
//! - An object that is written too often: a second, for this key. Other requests use its turn meanwhile, as far as the
//!   bound on waiting requests allows.
//! - A service for credentials that fails: ten seconds at least, because of the jitter up to twenty-one.
//! - Credentials that are no longer accepted: new ones are fetched once, without a pause.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::Error;
use crate::gate::Turn;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// R2 and Google take one write a second for each object.
const KEY_PAUSE: Duration = Duration::from_secs(1);
const KEY_PAUSE_JITTER_MS: u64 = 100;
const MAX_KEY_PAUSES: u32 = 10;
const CREDENTIALS_FIRST_PAUSE: Duration = Duration::from_millis(100);
const CREDENTIALS_LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// With the pauses above: ten and a half seconds without jitter, which at most doubles each.
const MAX_CREDENTIALS_PAUSES: usize = 13;

/// A request until its final response.
#[derive(Default)]
pub(crate) struct Course {
    /// How many times the request may be retried.
    pub(crate) allowed: u32,
    /// A write whose response was lost may have been applied.
    pub(crate) unsure: bool,
    /// How often the store asked to slow down.
    pub(crate) slow_downs: u32,
    /// How often the request was retried.
    pub(crate) retries: u32,
    /// Kept until the request ends or waits for its key.
    pub(crate) turn: Option<Turn>,
    key_pauses: u32,
    fetched_again: bool,
}

impl Course {
    pub(crate) fn new(allowed: u32) -> Self {
        Self { allowed, ..Self::default() }
    }

    async fn pause_for_key(&mut self, pause: Duration) -> Result<(), Error> {
        if let Some(turn) = &mut self.turn {
            turn.leave();
        }
        tokio::time::sleep(pause).await;
        match &mut self.turn {
            Some(turn) => turn.take().await,
            None => Ok(()),
        }
    }
}

/// Sends the request until its final response. `fetch_credentials` makes the next attempt use other credentials than
/// one that started at the given time, and returns whether there can be others.
pub(crate) async fn run<T, F>(
    course: &mut Course,
    fetch_credentials: impl Fn(Instant) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut store_pauses = pauses(course.allowed);
    let mut credentials_pauses = growing(
        CREDENTIALS_FIRST_PAUSE,
        CREDENTIALS_LONGEST_PAUSE,
        if course.allowed == 0 { 0 } else { MAX_CREDENTIALS_PAUSES },
    );

    loop {
        let started = Instant::now();
        let error = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        course.unsure |= error.is_unsure();
        match &error {
            Error::Denied { expired: true, .. } if !course.fetched_again && fetch_credentials(started) => {
                course.fetched_again = true;
            }
            Error::Paced { retry_after } if course.allowed > 0 && course.key_pauses < MAX_KEY_PAUSES => {
                course.key_pauses += 1;
                course.pause_for_key(key_pause().max(retry_after.unwrap_or_default())).await?;
            }
            Error::Credentials { .. } => {
                let Some(pause) = credentials_pauses.next() else { return Err(error) };
                tokio::time::sleep(pause).await;
            }
            error if !error.is_retryable() || matches!(error, Error::Paced { .. }) => return Err(error.clone()),
            error => {
                let asked = match error {
                    Error::SlowDown { retry_after, .. } => {
                        course.slow_downs += 1;
                        retry_after.unwrap_or_default()
                    }
                    _ => Duration::ZERO,
                };
                let Some(pause) = store_pauses.next() else { return Err(error.clone()) };
                tokio::time::sleep(pause.max(asked)).await;
            }
        }
        course.retries += 1;
    }
}

/// The pause before a retry.
pub(crate) fn pauses(retries: u32) -> impl Iterator<Item = Duration> {
    growing(FIRST_PAUSE, LONGEST_PAUSE, usize::try_from(retries).unwrap_or(usize::MAX))
}

fn growing(first: Duration, longest: Duration, times: usize) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_max_times(times)
        .with_jitter()
        .build()
}

/// With jitter, so that writers of one key do not collide again.
fn key_pause() -> Duration {
    KEY_PAUSE + Duration::from_millis(RandomState::new().build_hasher().finish() % KEY_PAUSE_JITTER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Gate;
    use std::cell::Cell;

    async fn sends(retries: u32, error: Error) -> (u32, Course) {
        let sent = Cell::new(0);
        let mut course = Course::new(retries);
        let answer: Result<(), Error> = run(
            &mut course,
            |_started| true,
            || {
                sent.set(sent.get() + 1);
                let error = error.clone();
                async { Err(error) }
            },
        )
        .await;
        assert_eq!(answer, Err(error));
        (sent.get(), course)
    }

    fn denied(expired: bool) -> Error {
        Error::Denied { status: 403, code: String::new(), reason: String::new(), expired }
    }

    #[tokio::test(start_paused = true)]
    async fn only_retryable_errors_are_sent_again() {
        assert_eq!(sends(3, Error::Conflict).await.0, 1);
        assert_eq!(sends(3, Error::NotFound).await.0, 1);
        assert_eq!(sends(3, denied(false)).await.0, 1);
        assert_eq!(sends(3, Error::Unsupported { status: 501, code: String::new() }).await.0, 1);
        assert_eq!(sends(3, Error::Contended).await.0, 4);
        assert_eq!(sends(3, Error::NotAStore { status: 404 }).await.0, 4);
        assert_eq!(sends(0, Error::Contended).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_waits_as_long_as_the_store_asks() {
        let started = Instant::now();
        let slow = Error::SlowDown { status: 503, retry_after: Some(Duration::from_secs(7)) };
        let (sent, course) = sends(2, slow).await;
        assert_eq!((sent, course.slow_downs, course.unsure), (3, 3, true));
        assert!(started.elapsed() >= Duration::from_secs(14));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_written_too_often_costs_no_retry_and_no_slow_down() {
        let paced = Error::Paced { retry_after: None };
        let (sent, course) = sends(1, paced.clone()).await;
        assert_eq!((sent, course.slow_downs, course.unsure), (MAX_KEY_PAUSES + 1, 0, false));
        assert_eq!(sends(0, paced).await.0, 1, "a request that is to be sent once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_for_its_key_gives_its_turn_to_others() {
        let gate = Gate::new(1, 1);
        let mut course = Course { turn: Some(gate.enter().await.unwrap()), ..Course::new(1) };
        let answers = Cell::new(vec![Ok(()), Err(Error::Paced { retry_after: None })]);
        let waits = run(
            &mut course,
            |_started| false,
            || {
                let mut left = answers.take();
                let answer = left.pop().unwrap();
                answers.set(left);
                async { answer }
            },
        );
        let (waited, other) = tokio::join!(waits, async {
            let _turn = gate.enter().await.unwrap();
            Instant::now()
        });
        assert_eq!(waited, Ok(()));
        assert!(other.elapsed() >= KEY_PAUSE, "the other one had its turn before the pause was over");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_ten_seconds_of_the_credentials_service_is_waited_for() {
        let started = Instant::now();
        sends(1, Error::Credentials { status: 503, reason: String::new() }).await;
        let pauses = started.elapsed();
        assert!((Duration::from_secs(10)..=Duration::from_secs(21)).contains(&pauses), "{pauses:?}");
        assert_eq!(sends(0, Error::Credentials { status: 503, reason: String::new() }).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_fetched_again_once() {
        assert_eq!(sends(3, denied(true)).await.0, 2);
        assert_eq!(sends(0, denied(true)).await.0, 2);
    }
}
