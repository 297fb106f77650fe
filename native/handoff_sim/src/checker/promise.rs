//! The checks.

use handoff_core::time::Micros;
use handoff_core::{Engine, NodeView, Poll, Shared, StickyLevel, StickyPolicy};

use crate::checker::ledger::Ledger;
use crate::checker::{Checker, Rule, Stage};
use crate::cluster::NodeIndex;
use crate::servers::{Place, Server};

/// The progress of large drains is checked once in this many polls: the cost of the check grows with the
/// active servers.
const PROGRESS_EVERY: u64 = 256;
const LARGE: usize = 10_000;

impl Checker {
    /// Checks the start of an attempt. Because of clock errors, a heartbeat may count as written up to
    /// `grace` later than it was.
    pub fn starts(
        &mut self,
        now: Micros,
        action: (u32, &str, u32, Micros),
        node: NodeIndex,
        module: u32,
        ledger: &Ledger,
        grace: Micros,
    ) {
        let (id, target, attempt, timeout) = action;
        let what = format!("start of {id} on {target}, attempt {attempt}");
        if let Some(problem) = self.bad_target(target, id, module) {
            self.breach(now, Rule::Target, format!("{what}: {problem}"));
        }
        if let Some(problem) = ledger.over_limit(node, module, grace) {
            self.breach(now, Rule::Limit, format!("{what}: {problem}"));
        }
        let down = match self.stages[id as usize] {
            Stage::Untouched => false,
            Stage::Displaced => true,
            other => {
                self.breach(now, Rule::Protocol, format!("{what}: it is {other:?}"));
                return;
            }
        };
        if let Some(problem) =
            self.shares.as_mut().filter(|_| !down).and_then(|shares| shares.moves(target, &self.view))
        {
            self.breach(now, Rule::Share, format!("{what}: {problem}"));
        }
        self.starts[id as usize] += 1;
        if attempt != self.starts[id as usize] {
            self.breach(now, Rule::Protocol, format!("{what}: it was started {} times", self.starts[id as usize]));
        }
        if self.cancelled {
            self.breach(now, Rule::Protocol, format!("{what}: the drain is cancelled"));
        }
        if timeout == Micros::ZERO || now + timeout > self.deadline {
            self.breach(now, Rule::Deadline, format!("{what}: it is given {} us, ends too late", timeout.0));
        }
        self.enter(id, Stage::InFlight { target: node, attempt, down });
        self.touched[id as usize] = true;
        self.in_flight += 1;
        let towards = self.in_flight_to.entry(node).or_insert(0);
        *towards += 1;
        if let Some(cap) = self.config.max_concurrency_per_target
            && *towards > cap
        {
            let towards = *towards;
            self.breach(now, Rule::Ceiling, format!("{what}: {towards} towards it, the cap is {cap}"));
        }
    }

    /// Checks the release of a reservation.
    pub fn releases(&mut self, now: Micros, id: u32) {
        if self.stages[id as usize] != Stage::Displaced {
            self.breach(now, Rule::Displaced, format!("release of {id}, which is {:?}", self.stages[id as usize]));
        }
        self.enter(id, Stage::Releasing);
    }

    /// Checks the result of a poll after its actions were recorded.
    pub fn polled(&mut self, now: Micros, poll: &Poll, engine: &Engine, shared: &Shared) {
        let over = engine.is_over();
        if poll.wake.is_some_and(|wake| wake <= now) {
            self.breach(now, Rule::Protocol, format!("wake-up at {:?}, which is not in the future", poll.wake));
        }
        if poll.wake.is_none() != over {
            self.breach(now, Rule::Protocol, format!("wake-up {:?} of a drain that is over: {over}", poll.wake));
        }
        let ceiling = self.config.max_concurrency;
        let (flying, displaced) = (self.in_flight, self.displaced);
        let (stopping, releasing) = (self.stopping, self.releasing);
        if flying + displaced + stopping + releasing > ceiling {
            let down = format!("{flying} in flight, {displaced} displaced, {stopping} stopping, {releasing} releasing");
            self.breach(now, Rule::Ceiling, format!("{down}: the ceiling is {ceiling}"));
        }
        self.polls += 1;
        if self.stages.len() < LARGE || self.polls.is_multiple_of(PROGRESS_EVERY) || over {
            self.progress(now, engine, shared);
        }
    }

    /// Checks the final result: every server is settled, and the results agree with the events.
    pub fn finished<'a>(
        &mut self,
        now: Micros,
        engine: &Engine,
        shared: &Shared,
        server: impl Fn(u32) -> &'a Server,
        (drain, source): (usize, NodeIndex),
    ) {
        if now > self.deadline {
            self.breach(now, Rule::Deadline, format!("it ended {} us late", now.since(self.deadline).0));
        }
        if self.displaced > 0 {
            self.breach(now, Rule::Displaced, format!("{} servers are neither placed nor released", self.displaced));
        }
        let report = engine.report(now, shared);
        let left: u64 = report.left.values().sum();
        if report.moved + left != report.total || report.targets.values().sum::<u64>() != report.moved {
            self.breach(now, Rule::Counters, format!("the report does not add up: {report:?}"));
        }
        if report.gap.count != report.moved {
            self.breach(now, Rule::Counters, format!("{} gaps for {} moves", report.gap.count, report.moved));
        }
        let results = engine.results();
        let moved = results.iter().filter(|code| **code == 0).count() as u64;
        if moved != report.moved || results.contains(&u8::MAX) {
            self.breach(now, Rule::Counters, format!("{moved} results say moved, the report says {}", report.moved));
        }
        for (id, code) in (0_u32..).zip(&results) {
            let (server, untouched) = (server(id), !self.touched[id as usize]);
            let place = server.place();
            // Another drain told the server to stop: an earlier one of this node, whose time was over before
            // the server had ended, or that of the node that it had just come from, and the last step of its
            // start here failed.
            let by_another = server.stopped_at >= self.started && server.told_by.is_some_and(|by| by != drain);
            let plausible = match *code {
                // The second condition: another node has moved the server back since then.
                0 => place != Place::On(source) || server.moves > 1,
                // The server runs as before.
                _ if untouched => place == Place::On(source) || by_another,
                _ => true,
            };
            if !plausible {
                self.breach(now, Rule::Counters, format!("server {id}: result {code}, but it is {place:?}"));
            }
        }
    }

    fn progress(&mut self, now: Micros, engine: &Engine, shared: &Shared) {
        let progress = engine.progress(shared);
        let releasing = if progress.finished { 0 } else { u64::from(self.releasing) };
        // After the end, everything in flight counts as left.
        let under_way = if progress.finished { 0 } else { progress.in_flight + progress.displaced + progress.stopping };
        let sum = progress.pending + under_way + progress.moved + progress.left + releasing;
        if sum != progress.total {
            self.breach(now, Rule::Counters, format!("the sum is {sum} with {releasing} releasing: {progress:?}"));
        }
        let old = &self.previous;
        let fell = progress.moved < old.moved
            || progress.left < old.left
            || progress.failures < old.failures
            || progress.retried < old.retried
            || (old.finished && !progress.finished);
        if fell {
            self.breach(
                now,
                Rule::Counters,
                format!("a counter fell: {old:?}, then {progress:?}", old = self.previous),
            );
        }
        self.previous = progress;
    }

    fn bad_target(&self, target: &str, id: u32, module: u32) -> Option<String> {
        let Some(node) = self.node(target) else {
            return Some("not in the view".into());
        };
        let age_ms = self.view.now_ms - node.stamp_ms;
        let cpu_full = node.resources.cpu.known().is_some_and(|(used, max)| used >= max);
        let problem = if target == self.source {
            "it is the source"
        } else if !node.connected || self.lost.contains(target) {
            "it is not connected"
        } else if node.draining {
            "it is draining"
        } else if age_ms > self.config.max_age_ms || age_ms < -self.config.future_skew_ms {
            "its heartbeat is stale or from the future"
        } else if cpu_full {
            "its processor is at the limit"
        } else if !self.sticky_open(id, node) {
            "no open sticky level"
        } else {
            return None;
        };
        Some(format!("{problem} (module {module})"))
    }

    fn sticky_open(&self, id: u32, node: &NodeView) -> bool {
        let levels = &self.config.stickies[self.sticky_of[id as usize] as usize];
        if self.config.sticky == StickyPolicy::Ignore || levels.is_empty() {
            return true;
        }
        let mut delay = 0;
        for level in levels {
            let matches = match level {
                StickyLevel::Any { .. } => true,
                StickyLevel::Env { name, value, .. } => value.is_some() && node.env(name) == value.as_deref(),
            };
            if matches {
                return delay == 0 || self.config.sticky == StickyPolicy::AnyLevel;
            }
            delay += level.delay_ms();
        }
        false
    }
}
