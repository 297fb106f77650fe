//! The virtual object store: slots, latency, outages, refusals.
//!
//! Guarantee: requests are served first come, first served, so the moment a request will be answered is known
//! when it is made; a refused request takes no slot.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use handoff_core::time::Micros;

use crate::event_queue::millis;
use crate::random::Random;

/// The trouble of a store in a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    /// This share of requests gets a 503 at once.
    Refusing(f64),
    /// Requests are never answered: the client gives up after its own timeout.
    Silent,
    /// Service takes this many times as long.
    Slow(f64),
}

/// The description of a store. Times are in milliseconds since the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreShape {
    /// Requests served at a time; `None`: all.
    pub slots: Option<u32>,
    /// Median service time.
    pub latency_ms: f64,
    /// Sigma of the log-normal service time; 0 is constant.
    pub sigma: f64,
    /// Start, end and kind of each trouble.
    pub weather: Vec<(u64, u64, Weather)>,
}

impl StoreShape {
    /// A store with this number of slots and this service time in milliseconds, without trouble.
    pub const fn steady(slots: Option<u32>, latency_ms: f64) -> Self {
        StoreShape { slots, latency_ms, sigma: 0.0, weather: Vec::new() }
    }
}

/// How long a 503 takes.
const REFUSAL: Micros = Micros::from_millis(2);
/// When the client of a store gives up a request that is not answered.
const CLIENT_TIMEOUT: Micros = Micros::from_millis(5_000);

/// A store in a run.
#[derive(Debug)]
pub struct Store {
    shape: StoreShape,
    start: Micros,
    /// When each taken slot becomes free.
    taken: BinaryHeap<Reverse<Micros>>,
}

impl Store {
    /// A store whose troubles count from `start`.
    pub fn new(shape: StoreShape, start: Micros) -> Self {
        Store { shape, start, taken: BinaryHeap::new() }
    }

    /// A request made now: when it is answered, and whether it was served.
    pub fn request(&mut self, now: Micros, random: &mut Random) -> (Micros, bool) {
        let begin = match self.shape.slots {
            Some(slots) if self.taken.len() >= slots as usize => {
                self.taken.pop().map_or(now, |Reverse(free)| free.max(now))
            }
            _ => now,
        };
        let mut service = millis(random.log_normal(self.shape.latency_ms, self.shape.sigma));
        let mut answer = None;
        let ms = begin.since(self.start).as_millis();
        for (_, _, weather) in self.shape.weather.iter().filter(|(from, until, _)| (*from..*until).contains(&ms)) {
            match *weather {
                Weather::Refusing(share) if random.chance(share) => answer = Some(REFUSAL),
                Weather::Silent => answer = Some(CLIENT_TIMEOUT),
                Weather::Slow(factor) => {
                    service = millis(random.log_normal(self.shape.latency_ms * factor, self.shape.sigma))
                }
                Weather::Refusing(_) => {}
            }
        }
        if self.shape.slots.is_some() {
            self.taken.push(Reverse(if answer.is_some() { begin } else { begin + service }));
        }
        match answer {
            Some(wait) => (begin + wait, false),
            None => (begin + service, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_request_on_two_slots_waits_for_the_first() {
        let mut store = Store::new(StoreShape::steady(Some(2), 10.0), Micros::ZERO);
        let mut random = Random::new(1);
        let answers: Vec<u64> = (0..5).map(|_| store.request(Micros::ZERO, &mut random).0.as_millis()).collect();
        assert_eq!(answers, [10, 10, 20, 20, 30]);
    }

    #[test]
    fn an_outage_refuses_and_then_it_is_over() {
        let weather = vec![(0, 100, Weather::Refusing(1.0))];
        let mut store = Store::new(StoreShape { weather, ..StoreShape::steady(Some(1), 10.0) }, Micros::ZERO);
        let mut random = Random::new(1);
        assert_eq!(store.request(Micros::from_millis(99), &mut random), (Micros::from_millis(101), false));
        assert_eq!(store.request(Micros::from_millis(100), &mut random), (Micros::from_millis(110), true));
    }
}
