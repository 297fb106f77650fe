//! Delays of attempts outside the store: shared processors, a network, stalls of the machine, a cold start.

use handoff_core::time::Micros;

use crate::event_queue::millis;
use crate::world::{Due, World};

/// The processors of the machine that all nodes share.
#[derive(Debug, Default)]
pub(super) struct Cores([Core; 2]);

/// A core that other work uses, too. The kernel shares it fairly: while the other work runs, our threads earn
/// time, at most one slice. While there is earned time, our threads start at once. Then the other work runs
/// for a slice, and our threads wait for its end. The more of our threads wait, the more time they get per
/// slice.
#[derive(Debug, Default, Clone, Copy)]
struct Core {
    free: Micros,
    /// How long our threads may run before the other work runs again.
    earned: Micros,
}

/// How many threads can wait for one core: those of source, target and store.
const THREADS: u64 = 3;

impl Cores {
    /// Executes work on the core that is free first, while other work keeps cores for `slice` at a time.
    /// Returns the time of the end.
    fn work(&mut self, now: Micros, work: Micros, slice: Micros) -> Micros {
        let [one, other] = &mut self.0;
        let core = if one.free <= other.free { one } else { other };
        let waiting = core.free.since(now).0 / work.0.max(1);
        core.earned = (core.earned + now.since(core.free)).min(slice);
        core.free = core.free.max(now) + work;
        if slice > Micros::ZERO {
            core.earned = if work <= core.earned {
                Micros(core.earned.0 - work.0)
            } else {
                core.free = core.free + slice;
                slice.times(waiting.clamp(1, THREADS))
            };
        }
        core.free
    }

    fn stall(&mut self, until: Micros) {
        self.0.iter_mut().for_each(|core| core.free = core.free.max(until));
    }
}

impl World {
    /// Schedules the first stall, if the scenario has stalls.
    pub(super) fn first_stall(&mut self) {
        if self.scenario.noise.stalls.0 > 0.0 {
            self.next_stall();
        }
    }

    /// Stops the machine for a while.
    pub(super) fn stall(&mut self) {
        let lasts = self.random.exponential(self.scenario.noise.stalls.1);
        self.cores.stall(self.now() + millis(lasts));
        self.next_stall();
    }

    fn next_stall(&mut self) {
        let pause = self.random.exponential(1_000.0 / self.scenario.noise.stalls.0);
        self.queue.after(millis(pause), Due::Stall);
    }

    /// The extra delay of an attempt that starts now, because of the cold start.
    pub(super) fn cold(&mut self) -> Micros {
        let (attempts, longer) = self.scenario.noise.cold;
        self.started += 1;
        if self.started <= attempts { millis(longer) } else { Micros::ZERO }
    }

    /// The extra time that the stop of this server takes.
    pub(super) fn slow_stop(&mut self) -> Micros {
        let (share, longer) = self.scenario.noise.slow_stop;
        if self.random.chance(share) { millis(longer) } else { Micros::ZERO }
    }

    /// The time until a request reaches the store.
    pub(super) fn on_the_way(&mut self) -> Micros {
        let noise = self.scenario.noise;
        if noise.cpu_ms == 0.0 && noise.jitter_ms == 0.0 {
            return Micros::ZERO;
        }
        let now = self.now();
        let done = self.cores.work(now, millis(noise.cpu_ms), millis(noise.busy_ms));
        done.since(now) + millis(self.random.unit() * noise.jitter_ms)
    }
}
