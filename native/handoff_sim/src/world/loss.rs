//! Nodes and connections that are lost.

use handoff_core::time::Micros;
use handoff_core::{Event, Outcome, ServerId};

use crate::cluster::NodeIndex;
use crate::world::World;

impl World {
    /// Ends a node, with its servers and drains.
    pub(super) fn take_down(&mut self, node: NodeIndex) {
        self.cluster.node_mut(node).alive = false;
        self.servers.lose(node, self.queue.now(), &mut self.cluster);
        for drain in (0..self.drains.len()).filter(|drain| self.drains[*drain].source == node).collect::<Vec<_>>() {
            self.drains[drain].dead = true;
            for token in 0..self.attempts.len() {
                if self.attempts[token].as_ref().is_some_and(|attempt| attempt.drain == drain) {
                    self.abandon(token);
                }
            }
            if self.drains[drain].over.is_none() {
                self.forget(drain);
            }
        }
    }

    /// The source of an attempt has ended. What the target has begun continues.
    fn abandon(&mut self, token: usize) {
        let now = self.now();
        let Some(attempt) = &mut self.attempts[token] else { return };
        let (drain, id, number, answered) = (attempt.drain, attempt.id, attempt.number, attempt.answered);
        let (server, target, called) = (attempt.server, attempt.target, attempt.called > Micros::ZERO);
        attempt.answered = true;
        if !answered {
            let module = self.servers.get(server).module;
            let group = &mut self.groups[self.drains[drain].group];
            group.in_flight -= 1;
            group.ledger.end(target, module);
        }
        if !called {
            // The token is not used again, because events of the attempt may still be in the queue.
            self.attempts[token] = None;
            self.open -= 1;
        }
        if !answered && self.drains[drain].over.is_none() {
            let latency = Micros::ZERO;
            // As a Rust node does: other drains treat the server as gone.
            let event = Event::Finished { id: ServerId(id), attempt: number, outcome: Outcome::Gone, latency };
            self.note(drain, u64::from(id) << 8 | 10, || {
                format!("{id} attempt {number} ends with its source at {now:?}")
            });
            self.deliver(drain, event);
        }
    }

    /// Ends a drain whose source has ended.
    fn forget(&mut self, drain: usize) {
        let now = self.now();
        let state = &mut self.drains[drain];
        let group = &mut self.groups[state.group];
        state.decider.give_up(&mut group.shared);
        state.over = Some(now);
        group.drains.retain(|other| *other != drain);
        self.note(drain, 11, || "ends with its source".into());
        self.drain_ended(self.drains[drain].source);
    }

    /// Tells running drains that a node is gone, unless it has come back.
    pub(super) fn lost(&mut self, node: NodeIndex) {
        if self.cluster.node(node).connected {
            return;
        }
        let name = self.cluster.node(node).spec.name.clone();
        for drain in 0..self.drains.len() {
            if self.drains[drain].over.is_none() && self.drains[drain].source != node {
                self.drains[drain].checker.told_lost(&name);
                self.note(drain, 2, || format!("{name} is lost"));
                self.tell(drain, Event::NodeDown(name.clone()));
            }
        }
    }
}
