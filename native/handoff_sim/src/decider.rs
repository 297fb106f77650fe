//! What decides in a drain: the real engine, or a simple rule for comparison.

use handoff_core::time::Micros;
use handoff_core::{Action, ClusterView, Config, Engine, EngineError, Event, Poll, ServerSpec, Shared};

use crate::baseline::Baseline;
use crate::scenario::Strategy;

#[derive(Debug)]
pub enum Decider {
    Engine(Box<Engine>),
    Baseline(Box<Baseline>),
}

impl Decider {
    /// A drain that begins now.
    ///
    /// # Errors
    /// The engine's: configuration, servers or view are not valid.
    pub fn new(
        strategy: Strategy,
        config: &Config,
        servers: &[ServerSpec],
        view: ClusterView,
        now: Micros,
        shared: &mut Shared,
    ) -> Result<Decider, EngineError> {
        if strategy == Strategy::Engine {
            return Engine::new(config.clone(), servers, view, now, shared).map(Box::new).map(Decider::Engine);
        }
        let baseline = Baseline::new(strategy, config.clone(), servers, view, now);
        Ok(Decider::Baseline(Box::new(baseline)))
    }

    pub fn poll(&mut self, now: Micros, shared: &mut Shared) -> Poll {
        match self {
            Decider::Engine(engine) => engine.poll(now, shared),
            Decider::Baseline(baseline) => {
                let actions: Vec<Action> = baseline.poll(now);
                let wake = (!baseline.is_over()).then(|| baseline.deadline());
                Poll { actions, wake }
            }
        }
    }

    /// Handles an event.
    ///
    /// # Errors
    /// The engine's.
    pub fn on_event(&mut self, now: Micros, event: Event, shared: &mut Shared) -> Result<(), EngineError> {
        match self {
            Decider::Engine(engine) => engine.on_event(now, event, shared),
            Decider::Baseline(baseline) => {
                baseline.on_event(event);
                Ok(())
            }
        }
    }

    /// Gives up the reserved slots of a drain whose source has ended.
    pub fn give_up(&mut self, shared: &mut Shared) {
        if let Decider::Engine(engine) = self {
            engine.give_up_places(shared);
        }
    }

    /// The engine, unless a simple rule decides.
    pub fn engine(&self) -> Option<&Engine> {
        match self {
            Decider::Engine(engine) => Some(engine),
            Decider::Baseline(_) => None,
        }
    }
}
