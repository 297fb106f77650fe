//! Limits the requests in flight.
//!
//! Guarantee: at most `max_in_flight` requests are in flight (have a *turn*), and at most `max_waiting` wait
//! for a turn, in order of arrival.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

pub(crate) struct Gate {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Counts a waiter until it has a turn or its request is cancelled.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(crate) fn new(max_in_flight: usize, max_waiting: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(max_in_flight.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// A turn, held until it is dropped.
    pub(crate) async fn enter(&self) -> Result<Turn, Error> {
        if let Ok(permit) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(self.turn(permit));
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiter = Waiter(&self.waiting);
        if before >= self.max_waiting {
            return Err(Error::Overloaded);
        }
        let permit = acquire(&self.turns).await?;
        Ok(self.turn(permit))
    }

    fn turn(&self, permit: OwnedSemaphorePermit) -> Turn {
        Turn { turns: Arc::clone(&self.turns), permit: Some(permit) }
    }
}

pub(crate) struct Turn {
    turns: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    pub(crate) fn leave(&mut self) {
        self.permit = None;
    }

    /// Takes a turn again. A request that had one does not count as waiting.
    pub(crate) async fn take(&mut self) -> Result<(), Error> {
        self.permit = Some(acquire(&self.turns).await?);
        Ok(())
    }
}

/// The semaphore is never closed.
async fn acquire(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    Arc::clone(turns).acquire_owned().await.map_err(|_closed| Error::Overloaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_above_the_limit_is_refused_at_once_and_a_cancelled_one_makes_room() {
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
