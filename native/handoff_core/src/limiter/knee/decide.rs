//! What a measurement means in each stage of the search, and which stage follows.

use super::{Knee, Stage, Why, rounded};
use crate::limiter::flight::Flight;
use crate::limiter::probes::Probe;
use crate::limiter::tuning::{
    BRISK, CAREFUL_STEPS, FAR, FEW, FIRST, FIRST_STEP, HALVE, LONG, LONG_STEP, OPEN, OPEN_LONG, PAUSED_STEP, PAUSES,
    PROBE_DOWN, PROBE_DOWN_BLIND, PROBE_UP, QUARTER, SAME, SHORT, START, WIDE,
};
use crate::limiter::window::Measure;

impl Knee {
    /// The first measurement of a store about which nothing is known.
    pub(super) fn first(&mut self, measure: Measure, flight: &Flight) {
        if measure.ended_together() || measure.latency < SHORT {
            let until = if measure.is_long() { OPEN_LONG } else { OPEN };
            self.climb_by(until / f64::from(self.limit), measure, 0, true, flight);
        } else if measure.spread > WIDE {
            self.enter(Stage::Measure, START, flight);
        } else {
            self.climb(measure, 0, true, flight);
        }
    }

    /// A limit that was learnt before was measured.
    pub(super) fn learnt(&mut self, measure: Measure, latency: f64, knee: bool, flight: &Flight) {
        if self.is_short() {
            // With a knee there may have been refusals above it, so the step is no larger than usual.
            return self.climb_by(BRISK.min(self.up_to_short()), measure, CAREFUL_STEPS, false, flight);
        }
        let ratio = measure.latency / latency;
        let noise = 2.0 * self.doubt.change(measure, measure, 1.0).noise;
        let long = measure.is_long();
        let pauses = long && latency < LONG;
        // The store is faster than it was then, so its knee is elsewhere.
        let outdated = knee && !long && ratio < 1.0 / (SAME + noise);
        if outdated && self.limit < START {
            self.doubt.looked();
            return self.first(measure, flight);
        }
        let knee = knee && !outdated;
        if ratio <= if long { PAUSES } else { SAME + noise } {
            self.doubt.looked();
            if !knee && self.limit < FEW && !pauses {
                // The limit may already be the knee of a small store, so the step is small.
                return self.climb_by(PROBE_UP, measure, 0, false, flight);
            }
            if !knee {
                return self.climb(measure, CAREFUL_STEPS, false, flight);
            }
            self.probes.confirmed();
            return self.hold(self.limit, Some(measure), flight);
        }
        if pauses && self.limit <= FEW {
            // Pauses are more likely than a queue. The next step up shows which of them it is.
            return self.climb_by(PAUSED_STEP, measure, CAREFUL_STEPS, true, flight);
        }
        // The first attempts of a node take longer because they load code and open connections, so it
        // measures again.
        if long || !self.look_again(1, flight) {
            self.drop((1.0 / ratio).clamp(QUARTER, PROBE_DOWN), measure, Why::Slower, flight);
        }
    }

    /// A step up was measured.
    pub(super) fn climbed(
        &mut self,
        measure: Measure,
        from: u32,
        flat: Measure,
        step: u32,
        blind: bool,
        flight: &Flight,
    ) {
        let change = self.doubt.change(flat, measure, f64::from(self.limit) / f64::from(from));
        let long = measure.is_long() && flat.is_long();
        let cold = !long && change.was_cold();
        if blind && !long && (cold || flat.is_unlike(measure)) {
            return self.again(Stage::Measure, flight);
        }
        // With so few attempts, a second look would take longer than it is worth.
        let few = blind && self.limit < START;
        if change.is_free() || (few && !long && change.is_affordable()) {
            self.doubt.looked();
            self.probes.soon();
            self.wall = self.wall.filter(|wall| self.limit < *wall);
            self.find(measure, false);
            if self.limit == self.ceiling {
                return self.hold(self.limit, Some(measure), flight);
            }
            if cold && self.limit < FEW && !self.is_short() {
                // The lower limit may be the knee of a small store, so it is measured again.
                return self.enter(Stage::Learnt { latency: measure.latency, knee: false }, from, flight);
            }
            let flat = if cold { measure } else { flat.pooled(measure) };
            if few && !long {
                return self.climb_by(OPEN / f64::from(self.limit), flat, CAREFUL_STEPS - 1, false, flight);
            }
            if long && change.possible >= FIRST_STEP {
                return self.climb_by(LONG_STEP, flat, step + 1, false, flight);
            }
            return self.climb(flat, step + 1, false, flight);
        }
        if self.is_short() {
            self.probes.soon();
            self.find(measure, false);
            return self.climb_by(self.up_to_short(), measure, step + 1, false, flight);
        }
        if !few && change.may_be_affordable() && self.look_closer(change) {
            return;
        }
        let knee = rounded(f64::from(self.limit) / change.ratio);
        let far = change.possible > FAR;
        let far_off = far && knee < START && !measure.is_long() && measure.latency >= SHORT;
        let maybe_a_stall = change.is_impossible() || far_off || (step >= CAREFUL_STEPS && self.limit > FEW);
        if self.look_again(u32::from(maybe_a_stall), flight) {
            return;
        }
        if blind && knee <= from {
            let factor = PROBE_DOWN_BLIND * f64::from(from) / f64::from(self.limit);
            return self.drop(factor, measure, Why::Blind, flight);
        }
        if far {
            self.probes.soon_in(Probe::Down);
            return self.hold(knee.max(self.least(measure.latency)).clamp(from, self.limit), None, flight);
        }
        if change.is_affordable() {
            self.probes.soon_in(Probe::Down);
            return self.hold(self.limit, Some(measure), flight);
        }
        self.probes.later();
        let knee = knee.min(self.limit - 1).max(self.least(measure.latency)).max(from);
        let usual = if knee == from { Some(flat) } else { (knee == self.limit).then_some(measure) };
        self.hold(knee, usual, flight);
    }

    /// A window at an unchanged limit was measured.
    pub(super) fn held(&mut self, measure: Measure, usual: Measure, attempts: u32, flight: &Flight) {
        let change = self.doubt.change(usual, measure, 1.0);
        let attempts = attempts.saturating_add(self.window.size());
        if change.is_slower() {
            if !self.look_again(1, flight) {
                self.probes.soon();
                self.drop((1.0 / change.ratio).clamp(QUARTER, PROBE_DOWN), measure, Why::Slower, flight);
            }
            return;
        }
        self.doubt.looked();
        if change.is_faster() {
            self.probes.soon_in(Probe::Up);
            return self.hold(self.limit, Some(measure), flight);
        }
        let usual = usual.pooled(measure);
        match self.probes.due(attempts, self.limit, self.limit == self.ceiling) {
            None => self.again(Stage::Hold { usual: Some(usual), attempts }, flight),
            Some(Probe::Up) => self.climb_by(PROBE_UP, usual, 0, false, flight),
            Some(Probe::Down) => self.drop(PROBE_DOWN, usual, Why::Probe, flight),
        }
    }

    /// A lower limit was measured.
    pub(super) fn dropped(&mut self, measure: Measure, from: u32, before: Measure, why: Why, flight: &Flight) {
        let change = self.doubt.change(measure, before, f64::from(from) / f64::from(self.limit)).of_the_higher();
        if change.is_unsure() && self.look_closer(change) {
            return;
        }
        if measure.is_long() && change.possible > PAUSES && change.ratio <= PAUSES {
            // The attempts contain pauses, some of them one more than others, which explains the latency
            // without a queue.
            return self.hold(from, None, flight);
        }
        if change.is_inverse() {
            // Attempts take longer although fewer are in flight, so our attempts do not cause a queue.
            if !self.look_again(1, flight) {
                self.hold(from, None, flight);
            }
        } else if change.is_impossible() {
            // Latency has fallen more than a queue could explain, so a stall has ended.
            self.doubt.stalled();
            self.hold(from, None, flight);
        } else if change.is_all_queue() {
            // All of the fall was queueing, so the knee is further down.
            self.probes.soon();
            self.drop(HALVE, measure, why, flight);
        } else if why == Why::Slower {
            // Perhaps it was only the time that helped, not the lower limit.
            self.climb(measure, 0, false, flight);
        } else if why == Why::Blind && (FIRST + 1..START).contains(&from) && change.is_slight() {
            // Too little for a queue, although attempts did not end together.
            self.limit = from;
            self.climb_by(OPEN / f64::from(from), before.pooled(measure), CAREFUL_STEPS - 1, false, flight);
        } else if !change.is_no_queue() {
            let knee = rounded(f64::from(from) / change.ratio).clamp(self.limit, from);
            if knee < from {
                self.probes.soon();
            }
            self.hold(knee, None, flight);
        } else if why == Why::Blind {
            self.limit = from;
            self.climb(before.pooled(measure), 0, false, flight);
        } else {
            self.hold(from, Some(before), flight);
        }
    }
}
