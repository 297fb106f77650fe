//! The steps of an attempt at its target.

use handoff_core::time::Micros;
use handoff_core::{Blame, Outcome};

use crate::cluster::NodeIndex;
use crate::servers::Place;
use crate::world::rehome::Step;
use crate::world::{Due, World};

/// How long the caller waits for the start on the target.
const ERPC_SAME_REGION: Micros = Micros::from_millis(3_000);
const ERPC_OTHER_REGION: Micros = Micros::from_millis(8_000);

impl World {
    /// The target is suspended: it continues later, and the caller may give up first.
    pub(super) fn suspended(&mut self, token: usize, step: Step, resumes: Micros) {
        let ends = self.call_ends(token);
        if let Some(attempt) = self.attempts[token].as_mut() {
            attempt.busy = true;
            if ends < resumes && !attempt.answered {
                self.queue.at(ends, Due::Attempt(token, Step::GiveUp(Outcome::Displaced(Blame::Target))));
            }
            self.queue.at(resumes, Due::Attempt(token, step));
        }
    }

    pub(super) fn at_target(&mut self, token: usize) {
        let now = self.queue.now();
        let Some(attempt) = &mut self.attempts[token] else { return };
        attempt.busy = false;
        let (server, target, lag) = (attempt.server, attempt.target, attempt.lag);
        let (module, stopped_at) = (self.servers.get(server).module, self.servers.get(server).stopped_at);
        if !self.cluster.node(target).alive {
            let refused = Outcome::Displaced(Blame::Target);
            if self.cluster.node(target).connected {
                let at = self.call_ends(token);
                self.queue.at(at, Due::Attempt(token, Step::GiveUp(refused)));
            } else {
                self.end(token, refused);
            }
            return;
        }
        if let Place::On(node) = self.servers.place(server) {
            self.end(token, self.runs_on(node, target));
        } else if now.since(stopped_at) < lag {
            self.end(token, Outcome::RetrySame);
        } else if self.cluster.is_full(target, module) {
            self.refused_full += 1;
            self.end(token, Outcome::Displaced(Blame::Target));
        } else if !self.cluster.is_ready(target, now) || self.random.chance(self.scenario.faults.refusal) {
            self.end(token, Outcome::Displaced(Blame::Target));
        } else if self.servers.get(server).poisoned {
            self.end(token, Outcome::Displaced(Blame::Server));
        } else if self.random.chance(self.scenario.faults.elsewhere) {
            self.started_elsewhere(token);
        } else {
            self.ask_store(token, Step::Claimed);
        }
    }

    /// A client has already started the server on a running node.
    fn started_elsewhere(&mut self, token: usize) {
        let Some(attempt) = &self.attempts[token] else { return };
        let (server, source, target) = (attempt.server, attempt.source, attempt.target);
        let module = self.servers.get(server).module;
        let now = self.queue.now();
        let running: Vec<NodeIndex> = (0..self.cluster.len())
            .filter(|node| *node != source && self.cluster.is_ready(*node, now) && !self.cluster.is_full(*node, module))
            .collect();
        match running.is_empty() {
            true => self.end(token, Outcome::Displaced(Blame::Unknown)),
            false => {
                let node = self.random.pick(&running);
                self.servers.start(server, node, now, &mut self.cluster);
                self.end(token, self.runs_on(node, target));
            }
        }
    }

    pub(super) fn claimed(&mut self, token: usize, ok: bool) {
        let now = self.queue.now();
        let Some(attempt) = &mut self.attempts[token] else { return };
        attempt.busy = false;
        let (server, target) = (attempt.server, attempt.target);
        if !self.cluster.node(target).alive {
            return self.end(token, Outcome::Displaced(Blame::Target));
        }
        if !ok {
            return self.end(token, Outcome::Displaced(Blame::Store));
        }
        match self.servers.place(server) {
            Place::On(node) => self.end(token, self.runs_on(node, target)),
            // The server was released meanwhile: the object has changed, so the claim fails.
            Place::Free => self.end(token, Outcome::LostRace),
            Place::Reserved => {
                self.servers.start(server, target, now, &mut self.cluster);
                self.ask_store(token, Step::Announced);
            }
        }
    }

    pub(super) fn announced(&mut self, token: usize, ok: bool) {
        let now = self.queue.now();
        let Some(attempt) = &mut self.attempts[token] else { return };
        attempt.busy = false;
        let (server, target) = (attempt.server, attempt.target);
        let runs = self.servers.place(server) == Place::On(target);
        if !runs {
            self.end(token, Outcome::Displaced(Blame::Target));
        } else if ok {
            self.end(token, Outcome::Moved { node: None });
        } else {
            // A later attempt may have found a start whose caller has given up. Then no attempt keeps the
            // reservation.
            let reserved = !self.attempts[token].as_ref().is_some_and(|attempt| attempt.answered);
            // A caller that has seen the server there finds it gone.
            self.servers.stop(server, reserved, now, &mut self.cluster);
            self.end(token, Outcome::Displaced(Blame::Store));
        }
    }

    pub(super) fn call_ends(&self, token: usize) -> Micros {
        self.attempts[token].as_ref().map_or(Micros::MAX, |attempt| {
            let near = self.cluster.same_region(attempt.source, attempt.target);
            attempt.called + if near { ERPC_SAME_REGION } else { ERPC_OTHER_REGION }
        })
    }

    pub(super) fn runs_on(&self, node: NodeIndex, target: NodeIndex) -> Outcome {
        Outcome::Moved { node: (node != target).then(|| self.cluster.node(node).spec.name.clone()) }
    }
}
