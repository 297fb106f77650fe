//! Whoever decides in a drain: the real engine, or what it is compared with.

use handoff_core::time::Micros;
use handoff_core::{Action, ClusterView, Config, Engine, EngineError, Event, Poll, ServerSpec, Shared};

use crate::baseline::Baseline;
use crate::scenario::Strategy;

/// See the module documentation.
#[derive(Debug)]
pub enum Brain {
    /// The real engine.
    Engine(Box<Engine>),
    /// A rule without a plan.
    Baseline(Box<Baseline>),
}

impl Brain {
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
    ) -> Result<Brain, EngineError> {
        if strategy == Strategy::Engine {
            return Engine::new(config.clone(), servers, view, now, shared).map(Box::new).map(Brain::Engine);
        }
        let baseline = Baseline::new(strategy, config.clone(), servers, view, now);
        Ok(Brain::Baseline(Box::new(baseline)))
    }

    /// What to do now.
    pub fn poll(&mut self, now: Micros, shared: &mut Shared) -> Poll {
        match self {
            Brain::Engine(engine) => engine.poll(now, shared),
            Brain::Baseline(baseline) => {
                let actions: Vec<Action> = baseline.poll(now);
                let wake = (!baseline.is_over()).then(|| baseline.deadline());
                Poll { actions, wake }
            }
        }
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// The engine's.
    pub fn on_event(&mut self, now: Micros, event: Event, shared: &mut Shared) -> Result<(), EngineError> {
        match self {
            Brain::Engine(engine) => engine.on_event(now, event, shared),
            Brain::Baseline(baseline) => {
                baseline.on_event(event);
                Ok(())
            }
        }
    }

    /// The engine, where it decides.
    pub fn engine(&self) -> Option<&Engine> {
        match self {
            Brain::Engine(engine) => Some(engine),
            Brain::Baseline(_) => None,
        }
    }
}
