//! Limits the requests in flight.
//!
//! Guarantees
//! - At most `max_in_flight` requests are in flight (have a *turn*), and at most `max_waiting` wait for a turn, in
//!   order of arrival, or have given theirs to others for now.
//! - An urgent request ([`Settings::urgent_keys`]) waits only for other urgent ones: when no turn is free, it takes
//!   one of [`URGENT`] further turns, for which as many may wait.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Settings};

/// Heartbeats are small, and DurableServer reads twenty of them at a time.
const URGENT: usize = 8;

/// The gate for all requests, and the one for urgent requests that find it closed.
pub(crate) struct Lanes {
    all: Gate,
    urgent: Gate,
    urgent_keys: String,
}

impl Lanes {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            all: Gate::new(settings.max_in_flight, settings.max_waiting),
            urgent: Gate::new(URGENT, settings.max_waiting),
            urgent_keys: settings.urgent_keys.clone(),
        }
    }

    /// A turn for a request for this key or prefix, held until it is dropped.
    pub(crate) async fn enter(&self, key: &str) -> Result<Turn, Error> {
        if self.urgent_keys.is_empty() || !key.contains(&self.urgent_keys) {
            return self.all.enter().await;
        }
        match self.all.try_enter() {
            Some(turn) => Ok(Turn { further: Some(Arc::clone(&self.urgent.turns)), ..turn }),
            None => self.urgent.enter().await,
        }
    }
}

pub(crate) struct Gate {
    turns: Arc<Semaphore>,
    /// One for each request that may wait.
    places: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(max_in_flight: usize, max_waiting: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(max_in_flight.clamp(1, Semaphore::MAX_PERMITS))),
            places: Arc::new(Semaphore::new(max_waiting.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// A turn, held until it is dropped.
    pub(crate) async fn enter(&self) -> Result<Turn, Error> {
        if let Some(turn) = self.try_enter() {
            return Ok(turn);
        }
        let _place = Arc::clone(&self.places).try_acquire_owned().map_err(|_none| Error::Overloaded)?;
        let permit = acquire(&self.turns).await?;
        Ok(self.turn(permit))
    }

    fn try_enter(&self) -> Option<Turn> {
        Arc::clone(&self.turns).try_acquire_owned().ok().map(|permit| self.turn(permit))
    }

    fn turn(&self, permit: OwnedSemaphorePermit) -> Turn {
        Turn {
            turns: Arc::clone(&self.turns),
            further: None,
            places: Arc::clone(&self.places),
            permit: Some(permit),
            place: None,
        }
    }
}

pub(crate) struct Turn {
    turns: Arc<Semaphore>,
    /// Where an urgent request gets its next turn when none of `turns` is free.
    further: Option<Arc<Semaphore>>,
    places: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    place: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Gives the turn to others. Its request then counts as waiting; when no more may wait, it keeps its turn.
    pub(crate) fn leave(&mut self) {
        self.place = Arc::clone(&self.places).try_acquire_owned().ok();
        if self.place.is_some() {
            self.permit = None;
        }
    }

    /// Takes a turn again.
    pub(crate) async fn take(&mut self) -> Result<(), Error> {
        if self.permit.is_none() {
            self.permit = Some(match Arc::clone(&self.turns).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_none) => acquire(self.further.as_ref().unwrap_or(&self.turns)).await?,
            });
        }
        self.place = None;
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

    /// Such as a heartbeat that was answered with 429.
    #[tokio::test]
    async fn an_urgent_request_that_left_its_turn_does_not_queue_behind_others() {
        let settings =
            Settings { max_in_flight: 1, max_waiting: 2, urgent_keys: "__nodes/".into(), ..Settings::default() };
        let lanes = Lanes::new(&settings);
        let mut urgent = lanes.enter("p/__nodes/n").await.unwrap();
        urgent.leave();
        let _in_flight = lanes.enter("p/state").await.unwrap();
        let mut waits = Box::pin(lanes.enter("p/other"));
        let mut takes = Box::pin(urgent.take());
        std::future::poll_fn(|cx| {
            assert!(waits.as_mut().poll(cx).is_pending());
            assert_eq!(takes.as_mut().poll(cx), std::task::Poll::Ready(Ok(())));
            std::task::Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_request_without_its_turn_counts_as_waiting_and_one_too_many_keeps_it() {
        let gate = Gate::new(1, 1);
        let mut first = gate.enter().await.unwrap();
        first.leave();
        let mut second = gate.enter().await.unwrap();
        second.leave();
        assert_eq!(gate.enter().await.err(), Some(Error::Overloaded));
        assert_eq!(second.take().await, Ok(()));
        drop(second);
        assert_eq!(first.take().await, Ok(()));
        first.leave();
        assert!(gate.enter().await.is_ok(), "the turn of the first");
        drop(first);
        let _turn = gate.enter().await.unwrap();
        let mut waits = Box::pin(gate.enter());
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx))).await.is_pending());
    }
}
