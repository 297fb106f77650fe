//! What a simulated store, its path and its clients are like.

use handoff_core::limiter::Verdict;

/// Slots of a store that serves everything at once.
pub const UNLIMITED: usize = usize::MAX;

/// A store and everything around it that an attempt meets. All times in milliseconds.
#[derive(Clone, Debug)]
pub struct Shape {
    pub name: String,
    /// How many requests are served at a time, from which moment on. The first entry is for time 0.
    pub slots: Vec<(f64, usize)>,
    /// Service time of one store operation (its median where it is spread), from which moment on.
    pub latency: Vec<(f64, f64)>,
    /// Sigma of the log-normal service time; 0 is constant.
    pub sigma: f64,
    /// The source's CPU: this many cores, this much work before every operation and after the last.
    pub cores: usize,
    pub cpu: f64,
    /// Uniform delay in 0..jitter before every operation, outside the store (scheduling, network).
    pub jitter: f64,
    /// Whole-machine stalls: how many a second, their mean length. Nothing gets CPU in the meantime.
    pub stalls: (f64, f64),
    /// Other work on the machine: mean length of its phases and of the pauses between, and how many times slower CPU work is in them.
    pub busy: (f64, f64),
    /// Extra time of the first attempts (code loading, first connections).
    pub cold: (usize, f64),
    /// Servers whose own terminate is slow: probability, and by how many times a whole attempt.
    pub tail: (f64, f64),
    /// Attempts that hang outside the store until a timeout: probability, timeout, and what the engine calls it.
    pub hang: (f64, f64, Verdict),
    /// This many of the first attempts hang as well.
    pub hang_first: usize,
    /// Operations that are refused: from, until, probability.
    pub errors: Vec<(f64, f64, f64)>,
    /// More operations a second than this are refused at once (0: no such limit).
    pub throttle: f64,
}

impl Shape {
    /// A store with `slots` slots of `latency` ms; two cores, light CPU use, no noise.
    pub fn new(slots: usize, latency: f64) -> Self {
        let slots_name = if slots == UNLIMITED { "unlimited".into() } else { slots.to_string() };
        Shape {
            name: format!("{slots_name} x {latency} ms"),
            slots: vec![(0.0, slots)],
            latency: vec![(0.0, latency)],
            sigma: 0.0,
            cores: 2,
            cpu: 0.3,
            jitter: 0.0,
            stalls: (0.0, 0.0),
            busy: (0.0, 1.0),
            cold: (0, 0.0),
            tail: (0.0, 0.0),
            hang: (0.0, 0.0, Verdict::Neutral),
            hang_first: 0,
            errors: vec![],
            throttle: 0.0,
        }
    }

    /// The same under another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    fn with(mut self, note: &str, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.name = format!("{}, {note}", self.name);
        self
    }

    pub fn cpu(self, ms: f64) -> Self {
        self.with(&format!("cpu {ms}"), |s| s.cpu = ms)
    }

    pub fn jitter(self, ms: f64) -> Self {
        self.with(&format!("jitter {ms}"), |s| s.jitter = ms)
    }

    pub fn sigma(self, sigma: f64) -> Self {
        self.with(&format!("sigma {sigma}"), |s| s.sigma = sigma)
    }

    pub fn stalls(self, per_second: f64, mean: f64) -> Self {
        self.with(&format!("stalls {per_second}/s of {mean}"), |s| s.stalls = (per_second, mean))
    }

    pub fn busy(self, mean: f64, factor: f64) -> Self {
        self.with(&format!("busy x{factor} for {mean}"), |s| s.busy = (mean, factor))
    }

    pub fn cold(self, attempts: usize, extra: f64) -> Self {
        self.with(&format!("cold +{extra}"), |s| s.cold = (attempts, extra))
    }

    pub fn tail(self, probability: f64, factor: f64) -> Self {
        self.with(&format!("tail {probability} x{factor}"), |s| s.tail = (probability, factor))
    }

    pub fn hang(self, probability: f64, timeout: f64, verdict: Verdict) -> Self {
        self.with(&format!("hang {probability}"), |s| s.hang = (probability, timeout, verdict))
    }

    pub fn hang_first(self, attempts: usize, timeout: f64, verdict: Verdict) -> Self {
        self.with(&format!("first {attempts} hang"), |s| {
            s.hang_first = attempts;
            s.hang = (0.0, timeout, verdict);
        })
    }

    pub fn errors(self, from: f64, until: f64, probability: f64) -> Self {
        self.with(&format!("{probability} errors"), |s| s.errors.push((from, until, probability)))
    }

    pub fn throttle(self, per_second: f64) -> Self {
        self.with(&format!("throttle {per_second}/s"), |s| s.throttle = per_second)
    }

    pub fn slots_from(self, at: f64, slots: usize) -> Self {
        self.with(&format!("{slots} slots from {at}"), |s| s.slots.push((at, slots)))
    }

    pub fn latency_from(self, at: f64, latency: f64) -> Self {
        self.with(&format!("{latency} ms from {at}"), |s| s.latency.push((at, latency)))
    }
}
