//! The virtual object store: slots, latency, outages, refusals.
//!
//! Guarantee: requests are served in the order of their arrival, so the time of an answer is known when the
//! request is made. A refused request takes no slot.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use handoff_core::time::Micros;

use crate::event_queue::millis;
use crate::random::Random;
use crate::servers::ServerIndex;

/// A fault of the store during a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    /// This part of the requests gets a 503 at once.
    Refusing(f64),
    /// Requests are not answered, so the client gives up after its own timeout.
    Silent,
    /// Service takes this many times as long.
    Slow(f64),
}

/// The description of a store. Times are in milliseconds since the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreShape {
    /// Requests served at a time; `None`: all.
    pub slots: Option<u32>,
    pub latency_ms: f64,
    /// Sigma of the log-normal service time; 0 is constant.
    pub sigma: f64,
    /// Start, end and kind of each fault.
    pub weather: Vec<(u64, u64, Weather)>,
    /// Whether the store accepts only one write a second for each key.
    pub paced: Option<Paced>,
}

/// When keys were last written before their servers move, on a store that accepts one write a second for each
/// key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paced {
    /// Each key was written once within this many milliseconds before the run, because servers store their
    /// state first.
    pub stored_ms: u64,
    /// This part of the servers store their state just before they are stopped.
    pub busy: f64,
}

impl StoreShape {
    /// A store with this number of slots and this service time in milliseconds, without faults.
    pub const fn steady(slots: Option<u32>, latency_ms: f64) -> Self {
        StoreShape { slots, latency_ms, sigma: 0.0, weather: Vec::new(), paced: None }
    }
}

/// The time until a 503 is received.
const REFUSAL: Micros = Micros::from_millis(2);
/// The timeout of the store's client.
const CLIENT_TIMEOUT: Micros = Micros::from_millis(5_000);
/// The minimum time between two writes of a key.
const PACE: Micros = Micros::from_millis(1_000);
/// After such a refusal the client tries again after one second plus a random time of up to this many
/// milliseconds, as `state_store` does.
const PACE_JITTER_MS: u64 = 100;

/// A store in a run.
#[derive(Debug)]
pub struct Store {
    shape: StoreShape,
    start: Micros,
    /// When each taken slot becomes free.
    taken: BinaryHeap<Reverse<Micros>>,
    /// When each key was last written; only on stores that limit the writes of a key.
    written: BTreeMap<ServerIndex, Micros>,
}

impl Store {
    /// A store whose fault times count from `start`.
    pub fn new(shape: StoreShape, start: Micros) -> Self {
        Store { shape, start, taken: BinaryHeap::new(), written: BTreeMap::new() }
    }

    /// A write of this key now: as [`Store::request`], after the pauses that the key needs.
    pub fn write(&mut self, key: ServerIndex, now: Micros, random: &mut Random) -> (Micros, bool) {
        let Some(paced) = self.shape.paced else {
            return self.request(now, random);
        };
        let last = self.written.get(&key).copied().unwrap_or_else(|| {
            let stored_ms = random.between(0, paced.stored_ms);
            let busy = random.chance(paced.busy);
            if busy { now } else { Micros(self.start.0.saturating_sub(Micros::from_millis(stored_ms).0)) }
        });
        let mut begin = now;
        while begin < last + PACE {
            begin = begin + REFUSAL + PACE + Micros::from_millis(random.between(0, PACE_JITTER_MS));
        }
        self.written.insert(key, begin);
        self.request(begin, random)
    }

    /// A request now: returns when it is answered, and whether it is served.
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
    fn a_key_is_written_once_a_second_and_others_do_not_wait_for_it() {
        let paced = Some(Paced { stored_ms: 0, busy: 0.0 });
        let mut store = Store::new(StoreShape { paced, ..StoreShape::steady(None, 10.0) }, Micros::ZERO);
        let mut random = Random::new(1);
        let mut write = |key, ms| store.write(key, Micros::from_millis(ms), &mut random).0.as_millis();
        assert_eq!(write(1, 1_500), 1_510);
        assert!((2_512..2_612).contains(&write(1, 1_510)));
        assert_eq!(write(2, 1_510), 1_520);
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
