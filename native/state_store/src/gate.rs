//! How many requests are under way at a time.
//!
//! Guarantee: never more than `max_in_flight` hold a turn, never more than `max_waiting` wait for one, first come first served.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Error;

pub(crate) struct Gate {
    turns: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Counts one waiter for as long as it waits, also when its request is given up.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(crate) fn new(max_in_flight: usize, max_waiting: usize) -> Self {
        Self {
            turns: Semaphore::new(max_in_flight.clamp(1, Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// A turn, held until it is dropped.
    pub(crate) async fn enter(&self) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiter = Waiter(&self.waiting);
        if before >= self.max_waiting {
            return Err(Error::Overloaded);
        }
        // Nobody closes the semaphore.
        self.turns.acquire().await.map_err(|_closed| Error::Overloaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_more_than_may_wait_is_refused_at_once_and_giving_up_makes_room() {
        let gate = Gate::new(1, 1);
        let turn = gate.enter().await.unwrap();
        let mut second = Box::pin(gate.enter());
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx))).await.is_pending());
        assert_eq!(gate.enter().await.err(), Some(Error::Overloaded));
        drop(second);
        let mut third = Box::pin(gate.enter());
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(third.as_mut().poll(cx))).await.is_pending());
        drop(turn);
        assert!(third.await.is_ok());
    }
}
