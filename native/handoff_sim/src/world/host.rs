//! The part of the Elixir library: polling, executing actions, passing on events, cleaning up.

use handoff_core::time::Micros;
use handoff_core::{Action, EngineError, Event, Goal, ServerId};

use crate::checker::Rule;
use crate::cluster::NodeIndex;
use crate::event_queue::millis;
use crate::servers::{Place, ServerIndex};
use crate::world::rehome::{Attempt, Step};
use crate::world::{Due, World, events};

/// How many times clearing a reservation is tried, and the pause between two tries.
const CLEAR_TRIES: u32 = 3;
const CLEAR_PAUSE: Micros = Micros::from_millis(200);

impl World {
    /// Polls a drain and executes its actions.
    pub(super) fn poll(&mut self, drain: usize) {
        let now = self.now();
        if self.drains[drain].over.is_some() {
            return;
        }
        let group = self.drains[drain].group;
        let state = &mut self.drains[drain];
        let poll = state.decider.poll(now, &mut self.groups[group].shared);
        for action in &poll.actions {
            if self.drains[drain].over.is_some() {
                self.drains[drain].checker.breach(now, Rule::Protocol, format!("{action:?} after the end"));
            }
            self.carry_out(drain, action);
        }
        let (group, state) = (&self.groups[group], &mut self.drains[drain]);
        if group.in_flight > group.ceiling && self.scenario.coordinators > 0 {
            let detail = format!("{} in flight of all drains, the ceiling is {}", group.in_flight, group.ceiling);
            state.checker.breach(now, Rule::Ceiling, detail);
        }
        if let Some(engine) = state.decider.engine() {
            state.checker.polled(now, &poll, engine, &group.shared);
        }
        state.wanted = poll.wake;
        if let Some(wake) = poll.wake
            && state.armed.is_none_or(|armed| wake < armed)
        {
            state.armed = Some(wake);
            self.queue.at(wake, Due::Wake(drain));
        }
    }

    /// Handles a wake-up: polls if the engine still asks for this time, else waits for the time it asks for.
    pub(super) fn wake(&mut self, drain: usize) {
        let now = self.now();
        let state = &mut self.drains[drain];
        if state.over.is_some() || state.armed != Some(now) {
            return;
        }
        state.armed = None;
        match state.wanted {
            Some(wanted) if wanted > now => {
                state.armed = Some(wanted);
                self.queue.at(wanted, Due::Wake(drain));
            }
            _ => self.poll(drain),
        }
    }

    fn carry_out(&mut self, drain: usize, action: &Action) {
        match action {
            Action::Start { id, target, attempt, timeout } => self.start(drain, id.0, target, *attempt, *timeout),
            Action::Release { id } => {
                let (now, server) = (self.now(), self.drains[drain].servers[id.index()]);
                if self.is_engine() {
                    self.drains[drain].checker.releases(now, id.0);
                }
                self.note(drain, 4, || format!("release {}", id.0));
                self.open += 1;
                self.clear(drain, id.0, server, CLEAR_TRIES, true);
            }
            Action::Finish => self.finish(drain),
        }
    }

    fn start(&mut self, drain: usize, id: u32, target: &str, attempt: u32, timeout: Micros) {
        let now = self.now();
        let state = &mut self.drains[drain];
        let server = state.servers[id as usize];
        let Some(node) = self.cluster.find(target) else {
            state.checker.breach(now, Rule::Target, format!("start of {id} on {target}, which does not exist"));
            return;
        };
        let (module, source) = (self.servers.get(server).module, state.source);
        let grace = self.grace(self.drains[drain].group, node);
        let engine = self.is_engine();
        let state = &mut self.drains[drain];
        let group = &mut self.groups[state.group];
        if engine {
            let action = (id, target, attempt, timeout);
            state.checker.starts(now, action, node, module, &group.ledger, grace);
        }
        group.ledger.start(node, module);
        group.in_flight += 1;
        self.note(drain, u64::from(id) << 8 | 5, || format!("start {id} on {target}, attempt {attempt}"));
        let token = self.vacant.pop().unwrap_or_else(|| {
            self.attempts.push(None);
            self.attempts.len() - 1
        });
        let (target, number, began, called, lag) = (node, attempt, now, Micros::ZERO, Micros::ZERO);
        let (answered, busy) = (false, false);
        self.attempts[token] =
            Some(Attempt { drain, id, server, source, target, number, began, timeout, called, lag, answered, busy });
        self.open += 1;
        let overhead = millis(self.random.exponential(0.3)) + self.cold();
        self.queue.after(overhead, Due::Attempt(token, Step::Begin));
    }

    /// How much later than its real time a heartbeat may count as written: zero if clocks agree, and the
    /// delay of the heartbeat if the clock of a source of the group is behind that of the target.
    fn grace(&self, group: usize, target: NodeIndex) -> Micros {
        let spec = &self.cluster.node(target).spec;
        let mut sources = self.drains.iter().filter(|drain| drain.group == group).map(|drain| drain.source);
        if sources.any(|source| self.cluster.node(source).spec.skew_ms < spec.skew_ms) {
            Micros::from_millis(spec.heartbeat_delay_ms) + events::REFRESH
        } else {
            Micros::ZERO
        }
    }

    fn finish(&mut self, drain: usize) {
        let now = self.now();
        let (all, state) = (&self.servers, &mut self.drains[drain]);
        if let Some(engine) = state.decider.engine() {
            let (servers, source) = (&state.servers, state.source);
            let shared = &self.groups[state.group].shared;
            state.checker.finished(now, engine, shared, |id| all.get(servers[id as usize]), (drain, source));
        }
        state.over = Some(now);
        let source = state.source;
        let group = state.group;
        self.groups[group].drains.retain(|other| *other != drain);
        self.note(drain, 6, || "finished".into());
        if self.drains[drain].goal == Goal::Drain {
            self.drain_ended(source);
        }
    }

    /// Passes an event to a drain. Returns false when the drain was over.
    pub(super) fn deliver(&mut self, drain: usize, event: Event) -> bool {
        let now = self.now();
        let state = &mut self.drains[drain];
        let over = state.over.is_some();
        let what = match &event {
            Event::View(_) => String::new(),
            other => format!("{other:?}"),
        };
        match state.decider.on_event(now, event, &mut self.groups[state.group].shared) {
            Ok(()) => !over,
            Err(EngineError::Finished) if over => false,
            Err(error) => {
                state.checker.breach(now, Rule::Protocol, format!("{what}: refused: {error}"));
                !over
            }
        }
    }

    pub(super) fn refresh(&mut self, drain: usize) {
        if self.drains[drain].over.is_some() {
            return;
        }
        let source = self.drains[drain].source;
        let mut view = self.cluster.view(source, self.now());
        self.count(source, &mut view);
        self.drains[drain].checker.shown(view.clone());
        self.enter_in_ledger(self.drains[drain].group, &view);
        self.tell(drain, Event::View(view));
        self.queue.after(events::REFRESH, Due::Refresh(drain));
    }

    /// Records that a server that was told to stop has ended.
    pub(super) fn down(&mut self, drain: usize, id: u32) {
        self.open -= 1;
        if self.drains[drain].dead {
            return;
        }
        let (now, server) = (self.now(), self.drains[drain].servers[id as usize]);
        self.servers.stop(server, true, now, &mut self.cluster);
        self.note(drain, 7, || format!("{id} is down"));
        if self.drains[drain].over.is_none() {
            self.drains[drain].checker.told_stopped(id);
            self.tell(drain, Event::Stopped { id: ServerId(id) });
        } else {
            self.clean_up(drain, id, server);
        }
    }

    /// An attempt whose drain is over clears the reservation itself.
    pub(super) fn clean_up(&mut self, drain: usize, id: u32, server: ServerIndex) {
        if self.servers.place(server) == Place::Reserved {
            self.open += 1;
            self.clear(drain, id, server, CLEAR_TRIES, false);
        }
    }

    /// Clears a reservation: one request, conditional on the object being as the source wrote it.
    pub(super) fn clear(&mut self, drain: usize, id: u32, server: ServerIndex, tries: u32, tell: bool) {
        let (at, ok) = self.store.write(server, self.queue.now(), &mut self.random);
        self.queue.at(at, Due::Cleared { drain, id, server, tries: tries - 1, tell, ok });
    }

    pub(super) fn cleared(&mut self, drain: usize, id: u32, server: ServerIndex, tries: u32, tell: bool, ok: bool) {
        if self.drains[drain].dead {
            self.open -= 1;
            return;
        }
        if !ok && tries > 0 {
            self.queue.after(CLEAR_PAUSE, Due::Clear { drain, id, server, tries, tell });
            return;
        }
        self.open -= 1;
        if !ok {
            self.unreleased.insert(server);
        } else if self.servers.place(server) == Place::Reserved {
            self.servers.stop(server, false, self.queue.now(), &mut self.cluster);
        }
        if tell && self.drains[drain].over.is_none() {
            self.drains[drain].checker.told_released(id);
            self.note(drain, 8, || format!("{id} is released"));
            self.tell(drain, Event::Released { id: ServerId(id) });
        }
    }
}
