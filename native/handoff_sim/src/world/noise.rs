//! Delays of attempts outside the store: shared processors, a network, stalls of the machine, a cold start.

use handoff_core::time::Micros;

use crate::event_queue::millis;
use crate::world::{Due, World};

/// The processors of the machine that all nodes share.
#[derive(Debug, Default)]
pub(super) struct Cores([Core; 2]);

/// One that other work wants, too. The kernel shares it fairly: while the other work runs, ours earns time, at most a slice of
/// it, and starts at once as long as it has some. Then the other work gets a slice, and everything that waits for this core waits
/// for that. The more of our threads wait, the more time they get for each slice.
#[derive(Debug, Default, Clone, Copy)]
struct Core {
    free: Micros,
    /// What ours may run before it is the other work's turn.
    earned: Micros,
}

/// The threads of all nodes that one core can have waiting: source, target and store.
const THREADS: u64 = 3;

impl Cores {
    /// Does work on the core that is free first, beside other work that keeps a core for `slice`; when it is done.
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
    /// Enters the first stall, where there are any.
    pub(super) fn first_stall(&mut self) {
        if self.scenario.noise.stalls.0 > 0.0 {
            self.next_stall();
        }
    }

    /// The machine stands still for a while.
    pub(super) fn stall(&mut self) {
        let lasts = self.random.exponential(self.scenario.noise.stalls.1);
        self.cores.stall(self.now() + millis(lasts));
        self.next_stall();
    }

    fn next_stall(&mut self) {
        let pause = self.random.exponential(1_000.0 / self.scenario.noise.stalls.0);
        self.queue.after(millis(pause), Due::Stall);
    }

    /// How much later the attempt that starts now begins, because nothing is warm yet.
    pub(super) fn cold(&mut self) -> Micros {
        let (attempts, longer) = self.scenario.noise.cold;
        self.started += 1;
        if self.started <= attempts { millis(longer) } else { Micros::ZERO }
    }

    /// How much longer the server that stops now takes by itself.
    pub(super) fn slow_stop(&mut self) -> Micros {
        let (share, longer) = self.scenario.noise.slow_stop;
        if self.random.chance(share) { millis(longer) } else { Micros::ZERO }
    }

    /// How long it takes until a request reaches the store.
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
