//! Builders and a hand-driven engine for the tests of this crate.
#![allow(dead_code, missing_docs)]

use handoff_core::time::Micros;
use handoff_core::{
    Action, Capacity, ClusterView, Config, Engine, EngineError, Event, ModuleId, NodeView, Outcome, Report, Scope,
    ServerId, ServerSpec, Shared, Source, StickyId,
};

/// The wall clock at the start of every test, in milliseconds.
pub const WALL: i64 = 1_800_000_000_000;

pub fn config() -> Config {
    Config {
        concurrency: handoff_core::limiter::Concurrency::Fixed,
        source: Source {
            name: "source@h".into(),
            started_at_ms: Some(WALL - 3_600_000),
            generation: None,
            region: None,
        },
        ..Config::default()
    }
}

pub fn node(name: &str) -> NodeView {
    NodeView { name: name.into(), stamp_ms: WALL, connected: true, ..NodeView::default() }
}

pub fn limit(scope: Scope, current: u32, limit: u32) -> Capacity {
    Capacity { scope, current: current.into(), limit: limit.into() }
}

pub fn view(nodes: Vec<NodeView>) -> ClusterView {
    ClusterView { now_ms: WALL, nodes }
}

pub fn two_targets() -> ClusterView {
    view(vec![node("a@h"), node("b@h")])
}

pub fn spec(module: u32, priority: i32) -> ServerSpec {
    ServerSpec { module: ModuleId(module), sticky: StickyId(0), priority }
}

pub fn servers(count: usize) -> Vec<ServerSpec> {
    vec![spec(0, 0); count]
}

/// The usual end of an attempt.
pub const MOVED: Outcome = Outcome::Moved { node: None };

/// An attempt that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub id: u32,
    pub target: String,
    pub attempt: u32,
    pub timeout_ms: u64,
}

/// An engine whose clock the test controls.
pub struct Drive {
    pub engine: Engine,
    pub shared: Shared,
    pub now: Micros,
    pub wake: Option<Micros>,
    pub released: Vec<u32>,
    pub finished: bool,
}

impl Drive {
    pub fn new(config: Config, servers: &[ServerSpec], view: ClusterView) -> Drive {
        let mut shared = Shared::new(&config);
        let now = Micros::from_millis(1_000);
        let engine = Engine::new(config, servers, view, now, &mut shared).expect("valid");
        Drive { engine, shared, now, wake: None, released: Vec::new(), finished: false }
    }

    /// Polls once. Returns the attempts that start; releases and the end are recorded.
    pub fn poll(&mut self) -> Vec<Attempt> {
        let poll = self.engine.poll(self.now, &mut self.shared);
        self.wake = poll.wake;
        let mut started = Vec::new();
        for action in poll.actions {
            assert!(!self.finished, "{action:?} after the end");
            match action {
                Action::Start { id, target, attempt, timeout } => started.push(Attempt {
                    id: id.0,
                    target: target.to_string(),
                    attempt,
                    timeout_ms: timeout.as_millis(),
                }),
                Action::Release { id } => self.released.push(id.0),
                Action::Finish => self.finished = true,
            }
        }
        started
    }

    pub fn later(&mut self, ms: u64) {
        self.now = self.now + Micros::from_millis(ms);
    }

    pub fn event(&mut self, event: Event) -> Result<(), EngineError> {
        self.engine.on_event(self.now, event, &mut self.shared)
    }

    /// A view of the cluster arrives.
    pub fn see(&mut self, view: ClusterView) {
        self.event(Event::View(view)).expect("valid");
    }

    /// The connection to a node is lost.
    pub fn lose(&mut self, name: &str) {
        self.event(Event::NodeDown(name.into())).expect("known");
    }

    pub fn finish(&mut self, attempt: &Attempt, outcome: Outcome) {
        self.try_finish(attempt, outcome).expect("an attempt under way");
    }

    pub fn try_finish(&mut self, attempt: &Attempt, outcome: Outcome) -> Result<(), EngineError> {
        let latency = Micros::from_millis(40);
        self.event(Event::Finished { id: ServerId(attempt.id), attempt: attempt.attempt, outcome, latency })
    }

    pub fn moved(&mut self, attempt: &Attempt) {
        self.finish(attempt, MOVED);
    }

    /// Acknowledges every release ordered so far.
    pub fn acknowledge_releases(&mut self) {
        for id in std::mem::take(&mut self.released) {
            self.event(Event::Released { id: ServerId(id) }).expect("it was to be released");
        }
    }

    /// Moves every server that starts until none starts any more. Returns the attempts.
    pub fn move_all(&mut self) -> Vec<Attempt> {
        let mut all = Vec::new();
        loop {
            let started = self.poll();
            if started.is_empty() {
                return all;
            }
            self.later(10);
            started.iter().for_each(|attempt| self.moved(attempt));
            all.extend(started);
        }
    }

    pub fn report(&self) -> Report {
        self.engine.report(self.now, &self.shared)
    }
}

/// How many attempts went to `target`.
pub fn count(attempts: &[Attempt], target: &str) -> usize {
    attempts.iter().filter(|attempt| attempt.target == target).count()
}
