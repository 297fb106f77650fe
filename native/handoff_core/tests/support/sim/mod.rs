//! One drain in virtual time: servers, a store with slots, a CPU, noise, and the limiter under test in the middle.
//!
//! An attempt is four store operations in series with a little CPU around each. Its gap runs from its first start to the end of
//! the third operation, as between the old process's `terminate` and the new one's `init`.

#![allow(dead_code, reason = "every test and example uses a part of it")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "virtual milliseconds and microseconds of minutes, never negative"
)]

mod random;
mod shape;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use handoff_core::limiter::{Concurrency, Limiter, Permit, Verdict};
use handoff_core::time::Micros;

pub use random::Random;
pub use shape::{Shape, UNLIMITED};

const OPERATIONS: u8 = 4;
const OPERATIONS_IN_GAP: u8 = 3;
/// A refused server is tried again after this (doubled each time), ahead of all others.
const RETRY: u64 = 20_000;

/// What one drain came to. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub total: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    pub highest: u32,
    pub attempts: usize,
    /// (time, limit, in flight) at every change of the limit.
    pub trace: Vec<(f64, u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    CpuDone(usize),
    AtStore(usize),
    Served(usize),
    Refused(usize),
    Gave(usize),
    Retry(usize),
    Slots(usize),
    Stall,
    Busy,
    Wake,
}

struct Server {
    first_start: Option<u64>,
    started: u64,
    permit: Option<Permit>,
    operation: u8,
    slow: bool,
    hangs: bool,
    refusals: u32,
    gap: Option<u64>,
}

struct Sim<'a> {
    shape: &'a Shape,
    random: Random,
    now: u64,
    count: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    servers: Vec<Server>,
    waiting: VecDeque<usize>,
    cpu_free: Vec<u64>,
    busy_now: bool,
    slots: usize,
    busy: usize,
    queue: VecDeque<usize>,
    bucket: (u64, f64),
    limiter: Limiter,
    wake: Option<u64>,
    left: usize,
    attempts: usize,
    trace: Vec<(f64, u32, u32)>,
}

fn us(ms: f64) -> u64 {
    (ms * 1_000.0).round() as u64
}

/// Drains `servers` servers under the limiter with this mode and ceiling.
pub fn drain(shape: &Shape, mode: Concurrency, ceiling: u32, servers: usize, seed: u64) -> Outcome {
    let mut sim = Sim {
        shape,
        random: Random::new(seed),
        now: 0,
        count: 0,
        events: BinaryHeap::new(),
        servers: Vec::with_capacity(servers),
        waiting: (0..servers).collect(),
        cpu_free: vec![0; shape.cores],
        busy_now: false,
        slots: 0,
        busy: 0,
        queue: VecDeque::new(),
        bucket: (0, 0.0),
        limiter: Limiter::new(mode, ceiling),
        wake: None,
        left: servers,
        attempts: 0,
        trace: vec![],
    };
    for id in 0..servers {
        let slow = sim.random.chance(shape.tail.0);
        let hangs = sim.random.chance(shape.hang.0) || id < shape.hang_first;
        sim.servers.push(Server {
            first_start: None,
            started: 0,
            permit: None,
            operation: 0,
            slow,
            hangs,
            refusals: 0,
            gap: None,
        });
    }
    for &(at, slots) in &shape.slots {
        sim.at(us(at), Event::Slots(slots));
    }
    if shape.stalls.0 > 0.0 {
        let first = sim.random.exponential(1_000.0 / shape.stalls.0);
        sim.at(us(first), Event::Stall);
    }
    if shape.busy.0 > 0.0 {
        sim.at(0, Event::Busy);
    }
    sim.run();
    sim.outcome()
}

impl Sim<'_> {
    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    fn run(&mut self) {
        // The slots of time 0 come before the first start.
        while self.left > 0 {
            if self.now > 0 || self.slots > 0 {
                self.start_what_may_start();
            }
            let Reverse((time, _, event)) =
                self.events.pop().expect("a drain with servers left always has a next event");
            assert!(time >= self.now);
            self.now = time;
            self.handle(event);
        }
    }

    fn start_what_may_start(&mut self) {
        while self.limiter.available() > 0 {
            let Some(id) = self.waiting.pop_front() else { break };
            self.attempts += 1;
            let permit = self.limiter.on_start(Micros(self.now));
            let cold = if self.attempts <= self.shape.cold.0 { us(self.shape.cold.1) } else { 0 };
            let server = &mut self.servers[id];
            server.permit = Some(permit);
            server.started = self.now;
            server.first_start.get_or_insert(self.now);
            server.operation = 0;
            if server.hangs {
                server.hangs = false;
                self.at(self.now + us(self.shape.hang.1), Event::Gave(id));
                continue;
            }
            let mut extra = cold;
            if server.slow {
                let whole = self.latency() * f64::from(OPERATIONS);
                extra += us(whole * self.shape.tail.1);
            }
            self.on_cpu(id, extra);
        }
        let limit = self.limiter.limit();
        if self.trace.last().is_none_or(|&(_, last, _)| last != limit) {
            self.trace.push((self.now as f64 / 1_000.0, limit, self.limiter.in_flight()));
        }
        let wake = self.limiter.next_tick().map(|at| at.0.max(self.now + 1));
        if let Some(at) = wake
            && self.wake.is_none_or(|pending| at < pending)
        {
            self.wake = Some(at);
            self.at(at, Event::Wake);
        }
    }

    fn latency(&self) -> f64 {
        let now = self.now;
        self.shape.latency.iter().rfind(|(from, _)| us(*from) <= now).map_or(0.0, |&(_, ms)| ms)
    }

    /// Queues the next piece of CPU work of this attempt; `extra` passes afterwards without using anything.
    fn on_cpu(&mut self, id: usize, extra: u64) {
        let now = self.now;
        let factor = if self.busy_now { self.shape.busy.1 } else { 1.0 };
        let core = self.cpu_free.iter_mut().min().expect("at least one core");
        *core = (*core).max(now) + us(self.shape.cpu * factor);
        let done = *core + extra;
        self.at(done, Event::CpuDone(id));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::CpuDone(id) if self.servers[id].operation == OPERATIONS => self.finish(id, Verdict::Served),
            Event::CpuDone(id) => {
                let jitter = self.random.unit() * self.shape.jitter;
                self.at(self.now + us(jitter), Event::AtStore(id));
            }
            Event::AtStore(id) => self.at_store(id),
            Event::Served(id) => {
                self.busy -= 1;
                self.serve_queue();
                let server = &mut self.servers[id];
                server.operation += 1;
                if server.operation == OPERATIONS_IN_GAP {
                    server.gap = Some(self.now - server.first_start.expect("it was started"));
                }
                self.on_cpu(id, 0);
            }
            Event::Refused(id) => self.finish(id, Verdict::Overload),
            Event::Gave(id) => {
                let verdict = self.shape.hang.2;
                self.finish(id, verdict);
            }
            Event::Retry(id) => self.waiting.push_front(id),
            Event::Slots(slots) => {
                self.slots = slots;
                self.serve_queue();
            }
            Event::Stall => {
                let (rate, mean) = self.shape.stalls;
                let until = self.now + us(self.random.exponential(mean));
                for core in &mut self.cpu_free {
                    *core = (*core).max(until);
                }
                let next = self.random.exponential(1_000.0 / rate);
                self.at(self.now + us(next), Event::Stall);
            }
            Event::Busy => {
                self.busy_now = !self.busy_now;
                let next = self.random.exponential(self.shape.busy.0);
                self.at(self.now + us(next), Event::Busy);
            }
            Event::Wake => {
                self.wake = None;
                self.limiter.on_tick(Micros(self.now));
            }
        }
    }

    fn at_store(&mut self, id: usize) {
        let now = self.now;
        let failing = self.shape.errors.iter().find(|(from, until, _)| (us(*from)..us(*until)).contains(&now));
        let probability = failing.map_or(0.0, |&(_, _, p)| p);
        let refused = (probability > 0.0 && self.random.chance(probability)) || self.throttled();
        if refused {
            self.at(now + 2_000, Event::Refused(id));
        } else {
            self.queue.push_back(id);
            self.serve_queue();
        }
    }

    /// A token bucket that holds a tenth of a second's worth.
    fn throttled(&mut self) -> bool {
        let rate = self.shape.throttle;
        if rate <= 0.0 {
            return false;
        }
        let (last, tokens) = self.bucket;
        let tokens = (tokens + (self.now - last) as f64 / 1e6 * rate).min(rate / 10.0);
        let refused = tokens < 1.0;
        self.bucket = (self.now, if refused { tokens } else { tokens - 1.0 });
        refused
    }

    fn serve_queue(&mut self) {
        while self.busy < self.slots
            && let Some(id) = self.queue.pop_front()
        {
            self.busy += 1;
            let mut ms = self.latency();
            if self.shape.sigma > 0.0 {
                ms *= (self.shape.sigma * self.random.normal()).exp();
            }
            self.at(self.now + us(ms), Event::Served(id));
        }
    }

    fn finish(&mut self, id: usize, verdict: Verdict) {
        let now = self.now;
        let server = &mut self.servers[id];
        let permit = server.permit.take().expect("it is in flight");
        self.limiter.on_finish(Micros(now), permit, Micros(now - server.started), verdict);
        if verdict == Verdict::Overload {
            server.gap = None;
            let pause = RETRY << server.refusals.min(5);
            server.refusals += 1;
            self.at(now + pause, Event::Retry(id));
        } else {
            self.left -= 1;
        }
    }

    fn outcome(self) -> Outcome {
        let mut gaps: Vec<u64> = self.servers.iter().filter_map(|s| s.gap).collect();
        gaps.sort_unstable();
        let at = |q: f64| gaps[((gaps.len() as f64 * q).ceil() as usize).clamp(1, gaps.len()) - 1] as f64 / 1_000.0;
        Outcome {
            total: self.now as f64 / 1_000.0,
            p50: at(0.50),
            p99: at(0.99),
            max: at(1.0),
            highest: self.limiter.highest(),
            attempts: self.attempts,
            trace: self.trace,
        }
    }
}
