//! One attempt: the steps of `rehome_child`, with every possible failure between them. If the server has
//! something to store, or the store has failed, the source makes a successful write before it stops the
//! server.
//!
//! ```text
//! begin ─▶ terminate ─▶ PUT state ─▶ GET ─▶ erpc to the target ─▶ PUT claim ─▶ PUT running ─▶ moved
//!   │          │            │         │              │                │             │
//!   │          └ stopping   └ not     └ displaced    ├ retry same     └ displaced   └ displaced
//!   ├ untouched               stored    (store)      ├ displaced (target, server)
//!   ├ gone                                           └ moved elsewhere
//!   └ already down: straight to GET
//! ```

use handoff_core::time::Micros;
use handoff_core::{Blame, Event, Outcome, ServerId};

use crate::checker::Rule;
use crate::cluster::NodeIndex;
use crate::event_queue::millis;
use crate::servers::{Place, ServerIndex};
use crate::world::{Due, World};

/// The step of an attempt. The flag says whether the store served the previous request.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Begin,
    /// A request reaches the store.
    Ask(fn(bool) -> Step),
    Synced(bool),
    Terminated,
    Written(bool),
    Read(bool),
    AtTarget,
    Claimed(bool),
    Announced(bool),
    /// The caller stops waiting.
    GiveUp(Outcome),
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) drain: usize,
    pub(super) id: u32,
    pub(super) server: ServerIndex,
    pub(super) source: NodeIndex,
    pub(super) target: NodeIndex,
    pub(super) number: u32,
    pub(super) began: Micros,
    pub(super) timeout: Micros,
    pub(super) called: Micros,
    /// How long after the stop the target's registry learns of it.
    pub(super) lag: Micros,
    /// The caller has given up, and the target continues.
    pub(super) answered: bool,
    /// A request of the target is in flight.
    pub(super) busy: bool,
}

impl World {
    pub(super) fn step(&mut self, token: usize, step: Step) {
        let Some(attempt) = &self.attempts[token] else { return };
        let (server, target) = (attempt.server, attempt.target);
        if matches!(step, Step::AtTarget | Step::Claimed(_) | Step::Announced(_))
            && let Some(resumes) = self.cluster.resumes(target, self.now())
        {
            return self.suspended(token, step, resumes);
        }
        match step {
            Step::Begin => self.begin(token),
            Step::Ask(then) => self.request(token, then),
            Step::Synced(true) => {
                self.servers.synced(server);
                self.stop(token);
            }
            Step::Synced(false) => self.end(token, Outcome::Untouched(Blame::Store)),
            Step::Terminated if self.random.chance(self.scenario.faults.stop_fails) => {
                self.stopped_unwritten(token, Outcome::StopFailed);
            }
            Step::Terminated => self.ask_store(token, Step::Written),
            Step::Written(true) => {
                self.servers.stop(server, true, self.queue.now(), &mut self.cluster);
                self.ask_store(token, Step::Read);
            }
            Step::Written(false) => self.stopped_unwritten(token, Outcome::NotStored),
            Step::Read(false) => self.end(token, Outcome::Displaced(Blame::Store)),
            Step::Read(true) if !self.cluster.node(target).connected => {
                self.end(token, Outcome::Displaced(Blame::Target));
            }
            Step::Read(true) => self.call(token),
            Step::AtTarget => self.at_target(token),
            Step::Claimed(ok) => self.claimed(token, ok),
            Step::Announced(ok) => self.announced(token, ok),
            Step::GiveUp(outcome) => self.give_up(token, outcome),
        }
    }

    fn begin(&mut self, token: usize) {
        let Some(attempt) = &self.attempts[token] else { return };
        let Attempt { drain, server, source, target, .. } = *attempt;
        let faults = self.scenario.faults;
        match self.servers.place(server) {
            Place::On(node) if node == source => {
                if self.random.chance(faults.overloaded) {
                    self.end(token, Outcome::Untouched(Blame::Unknown));
                } else if self.random.chance(faults.gone) {
                    self.servers.tell(server, drain, self.queue.now());
                    self.servers.stop(server, false, self.queue.now(), &mut self.cluster);
                    self.end(token, Outcome::Gone);
                } else if self.servers.get(server).unsynced || self.attempt_is_suspect(token) {
                    self.ask_store(token, Step::Synced);
                } else {
                    self.stop(token);
                }
            }
            Place::On(node) => self.end(token, self.runs_on(node, target)),
            Place::Reserved => self.ask_store(token, Step::Read),
            Place::Free => self.end(token, Outcome::LostRace),
        }
    }

    /// Whether the store has failed in this drain and has not succeeded since then. In that case the source
    /// first has to make a successful write.
    fn attempt_is_suspect(&self, token: usize) -> bool {
        self.attempts[token].as_ref().is_some_and(|attempt| self.drains[attempt.drain].suspect)
    }

    fn stop(&mut self, token: usize) {
        let Some(attempt) = &self.attempts[token] else { return };
        let (drain, server, timeout) = (attempt.drain, attempt.server, attempt.timeout);
        let faults = self.scenario.faults;
        self.servers.tell(server, drain, self.queue.now());
        let takes = millis(self.random.log_normal(faults.terminate_ms, 0.5)) + self.slow_stop();
        if self.random.chance(faults.hang) || takes > timeout {
            self.queue.after(timeout, Due::Attempt(token, Step::GiveUp(Outcome::Stopping)));
        } else {
            self.queue.after(takes, Due::Attempt(token, Step::Terminated));
        }
    }

    /// The server is down without its final write. It is still stored as running here, so no other node starts it.
    fn stopped_unwritten(&mut self, token: usize, outcome: Outcome) {
        let Some(attempt) = &self.attempts[token] else { return };
        let (at, drain, server) = (self.now(), attempt.drain, attempt.server);
        self.servers.stop(server, true, at, &mut self.cluster);
        if self.servers.get(server).unsynced {
            let detail = format!("server {server} was stopped, and its state was nowhere in the store");
            self.drains[drain].checker.breach(at, Rule::State, detail);
        }
        self.end(token, outcome);
    }

    /// Sends the erpc to the target.
    fn call(&mut self, token: usize) {
        let now = self.queue.now();
        let lag = millis(self.random.exponential(self.scenario.faults.registry_lag_ms));
        let Some(attempt) = &mut self.attempts[token] else { return };
        (attempt.called, attempt.lag) = (now, lag);
        let distance = millis(self.cluster.distance_ms(attempt.source, attempt.target));
        self.queue.after(distance, Due::Attempt(token, Step::AtTarget));
    }

    /// The caller continues without an answer. What the target has begun continues as well.
    fn give_up(&mut self, token: usize, outcome: Outcome) {
        let Some(attempt) = &mut self.attempts[token] else { return };
        if !attempt.busy {
            self.end(token, outcome);
        } else if !attempt.answered {
            attempt.answered = true;
            self.answer(token, outcome);
        }
    }

    /// Sends a request to the store, which may arrive later.
    pub(super) fn ask_store(&mut self, token: usize, then: fn(bool) -> Step) {
        match self.on_the_way() {
            Micros::ZERO => self.request(token, then),
            later => self.queue.after(later, Due::Attempt(token, Step::Ask(then))),
        }
    }

    /// Handles a request at the store. If the target's answer would come too late, the caller gives up first.
    fn request(&mut self, token: usize, then: fn(bool) -> Step) {
        let Some(server) = self.attempts[token].as_ref().map(|attempt| attempt.server) else { return };
        let now = self.queue.now();
        let (at, ok) = match then(true) {
            Step::Read(_) => self.store.request(now, &mut self.random),
            _ => self.store.write(server, now, &mut self.random),
        };
        let step = then(ok);
        let at_target = matches!(step, Step::Claimed(_) | Step::Announced(_));
        self.queue.at(at, Due::Attempt(token, step));
        if at_target {
            let ends = self.call_ends(token);
            let Some(attempt) = &mut self.attempts[token] else { return };
            attempt.busy = true;
            if at > ends && !attempt.answered {
                self.queue.at(ends, Due::Attempt(token, Step::GiveUp(Outcome::Displaced(Blame::Target))));
            }
        }
    }

    /// Ends an attempt. Answers, unless the caller has given up.
    pub(super) fn end(&mut self, token: usize, outcome: Outcome) {
        // If the caller no longer waits, later attempts of the drain handle a server that did not start.
        if self.attempts[token].as_ref().is_some_and(|attempt| !attempt.answered) {
            self.answer(token, outcome);
        }
        self.attempts[token] = None;
        self.vacant.push(token);
        self.open -= 1;
    }

    /// Tells the drain the outcome of an attempt.
    fn answer(&mut self, token: usize, outcome: Outcome) {
        let now = self.queue.now();
        let Some(attempt) = &self.attempts[token] else { return };
        let (drain, id, server, target, number) =
            (attempt.drain, attempt.id, attempt.server, attempt.target, attempt.number);
        let latency = now.since(attempt.began);
        let module = self.servers.get(server).module;
        let group = &mut self.groups[self.drains[drain].group];
        group.in_flight -= 1;
        group.ledger.end(target, module);
        if let (Outcome::Moved { .. }, Place::On(node)) = (&outcome, self.servers.place(server)) {
            group.ledger.arrive(node, module, self.servers.get(server).arrived_at);
            self.gaps.push(now.since(self.servers.get(server).told_at).0);
        }
        if outcome == Outcome::Stopping && !self.random.chance(self.scenario.faults.hang_for_ever) {
            let down = millis(self.random.exponential(2_000.0));
            self.open += 1;
            self.queue.after(down, Due::Down { drain, id });
        }
        self.note(drain, u64::from(id) << 8 | 9, || {
            format!("{id} attempt {number}: {outcome:?} after {} us", latency.0)
        });
        match outcome {
            Outcome::Moved { .. } => self.drains[drain].suspect = false,
            Outcome::Displaced(Blame::Store) | Outcome::Untouched(Blame::Store) | Outcome::NotStored => {
                self.drains[drain].suspect = true;
            }
            _ => {}
        }
        let over = self.drains[drain].over.is_some();
        if !over {
            self.drains[drain].checker.told_outcome(id, &outcome);
        }
        let event = Event::Finished { id: ServerId(id), attempt: number, outcome, latency };
        if !self.tell(drain, event) {
            self.clean_up(drain, id, server);
        }
    }
}
