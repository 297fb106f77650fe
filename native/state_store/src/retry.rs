//! When a failed request is sent again.
//!
//! Guarantee: only errors that may pass ([`Error::is_retryable`]), at most as often as asked for, after pauses that grow, differ from
//! one process to the next, and are never shorter than what the store asked for. The deadline is the caller's: a pause is
//! dropped with it.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What happened on the way to an answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Course {
    /// A write may have been applied without our knowing.
    pub(crate) unsure: bool,
    /// How often the store asked to slow down.
    pub(crate) slow_downs: u32,
    /// How often the request was sent again.
    pub(crate) retries: u32,
}

pub(crate) async fn run<T, F>(retries: u32, course: &mut Course, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_max_times(usize::try_from(retries).unwrap_or(usize::MAX))
        .with_jitter()
        .build();

    loop {
        let error = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        course.unsure |= error.is_unsure();
        course.slow_downs += u32::from(matches!(error, Error::SlowDown { .. }));
        if !error.is_retryable() {
            return Err(error);
        }
        let Some(pause) = pauses.next() else { return Err(error) };
        let asked = match error {
            Error::SlowDown { retry_after: Some(asked), .. } => asked,
            _ => Duration::ZERO,
        };
        course.retries += 1;
        tokio::time::sleep(pause.max(asked)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    async fn sends(retries: u32, error: Error) -> (u32, Course) {
        let sent = Cell::new(0);
        let mut course = Course::default();
        let answer: Result<(), Error> = run(retries, &mut course, || {
            sent.set(sent.get() + 1);
            let error = error.clone();
            async { Err(error) }
        })
        .await;
        assert_eq!(answer, Err(error));
        (sent.get(), course)
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_sent_again() {
        assert_eq!(sends(3, Error::Conflict).await.0, 1);
        assert_eq!(sends(3, Error::NotFound).await.0, 1);
        assert_eq!(sends(3, Error::Denied { status: 403, code: String::new() }).await.0, 1);
        assert_eq!(sends(3, Error::Contended).await.0, 4);
        assert_eq!(sends(0, Error::Contended).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_store_is_left_alone_for_as_long_as_it_asks() {
        let started = tokio::time::Instant::now();
        let slow = Error::SlowDown { status: 503, retry_after: Some(Duration::from_secs(7)) };
        let (sent, course) = sends(2, slow).await;
        assert_eq!((sent, course.slow_downs, course.unsure), (3, 3, true));
        assert!(started.elapsed() >= Duration::from_secs(14));
    }
}
