//! The baseline of comparisons: a task stream that calls `rehome_child` for the servers, fifty at a time,
//! each with the first node that a simple rule gives. It keeps no state between two calls.

use std::collections::VecDeque;
use std::sync::Arc;

use handoff_core::eligibility::{Query, eligible};
use handoff_core::time::Micros;
use handoff_core::{Action, ClusterView, Config, Event, Outcome, ServerId, ServerSpec};

use crate::scenario::Strategy;

#[derive(Debug)]
pub struct Baseline {
    strategy: Strategy,
    config: Config,
    servers: Vec<ServerSpec>,
    view: ClusterView,
    queue: VecDeque<ServerId>,
    starts: Vec<u32>,
    in_flight: u32,
    waiting_for_release: u32,
    deadline: Micros,
    over: bool,
}

impl Baseline {
    /// A drain of `servers` that begins now.
    pub fn new(strategy: Strategy, config: Config, servers: &[ServerSpec], view: ClusterView, now: Micros) -> Self {
        Baseline {
            strategy,
            view,
            queue: (0..).map(ServerId).take(servers.len()).collect(),
            starts: vec![0; servers.len()],
            servers: servers.to_vec(),
            in_flight: 0,
            waiting_for_release: 0,
            deadline: now + Micros::from_millis(config.timeout_ms),
            over: false,
            config,
        }
    }

    pub fn poll(&mut self, now: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        while now < self.deadline && self.in_flight < self.config.max_concurrency {
            let Some(id) = self.queue.pop_front() else { break };
            let starts = self.starts[id.index()];
            let target = (starts < self.config.max_attempts).then(|| self.target(id, starts as usize)).flatten();
            let Some(target) = target else {
                if starts > 0 {
                    self.waiting_for_release += 1;
                    actions.push(Action::Release { id });
                }
                continue;
            };
            self.starts[id.index()] += 1;
            self.in_flight += 1;
            let timeout = Micros::from_millis(self.config.attempt_timeout_ms);
            actions.push(Action::Start { id, target, attempt: starts + 1, timeout });
        }
        let idle = self.in_flight == 0 && self.waiting_for_release == 0 && self.queue.is_empty();
        if !self.over && (idle || now >= self.deadline) {
            self.over = true;
            actions.push(Action::Finish);
        }
        actions
    }

    pub fn on_event(&mut self, event: Event) {
        match event {
            Event::Finished { id, outcome, .. } => {
                self.in_flight -= 1;
                match outcome {
                    Outcome::RetrySame
                    | Outcome::Displaced(_)
                    | Outcome::Untouched(_)
                    | Outcome::NotStored
                    | Outcome::StopFailed => self.queue.push_front(id),
                    Outcome::Moved { .. }
                    | Outcome::Stopping
                    | Outcome::Gone
                    | Outcome::LostRace
                    | Outcome::NotStorable => {}
                }
            }
            Event::Stopped { id } => self.queue.push_front(id),
            Event::Released { .. } => self.waiting_for_release -= 1,
            Event::View(view) => self.view = view,
            Event::NodeDown(name) => self.view.nodes.retain(|node| node.name != name),
            Event::Cancel => self.queue.clear(),
            Event::EndWithin(_) | Event::CoordinatorLost => {}
        }
    }

    pub fn deadline(&self) -> Micros {
        self.deadline
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The first node by the rule; after a failed attempt the next one.
    fn target(&self, id: ServerId, failed: usize) -> Option<Arc<str>> {
        let spec = self.servers[id.index()];
        let sticky = &self.config.stickies[spec.sticky.0 as usize];
        let mut nodes = eligible(&self.view, &Query::new(&self.config, spec.module, sticky));
        if self.strategy == Strategy::LeastBusy {
            nodes.sort_by_key(|index| self.view.nodes[*index].servers);
        }
        nodes.get(failed % nodes.len().max(1)).map(|index| Arc::from(self.view.nodes[*index].name.as_str()))
    }
}
