//! The classes of servers: what decides where a server may go.

use std::collections::BTreeMap;

use super::ServerSpec;
use crate::config::{Config, Goal, MAX_SERVERS};
use crate::event::EngineError;
use crate::placement::Class;

/// A server in the queues: its class (an index) and its priority.
type Placed = (usize, i32);

/// Returns the distinct classes of `servers`, and each server's class and priority. A drain moves the most
/// important servers first, a rebalance the least important.
pub(crate) fn classify(config: &Config, servers: &[ServerSpec]) -> Result<(Vec<Class>, Vec<Placed>), EngineError> {
    let mut problems = config.validate().err().unwrap_or_default();
    if servers.len() > MAX_SERVERS {
        problems.push(format!("servers: got {}, takes at most {MAX_SERVERS}", servers.len()));
    }
    let stickies = config.stickies.len();
    if let Some(bad) = servers.iter().find(|spec| spec.module.0 >= config.modules || spec.sticky.0 as usize >= stickies)
    {
        problems.push(format!("servers: {bad:?} is outside of {} modules and {stickies} stickies", config.modules));
    }
    if !problems.is_empty() {
        return Err(EngineError::Invalid { problems });
    }
    let mut index: BTreeMap<Class, usize> = BTreeMap::new();
    let mut classes = Vec::new();
    let specs = servers
        .iter()
        .map(|spec| {
            let class = Class { module: spec.module, sticky: spec.sticky };
            let position = *index.entry(class).or_insert_with(|| {
                classes.push(class);
                classes.len() - 1
            });
            let rebalance = config.goal == Goal::Rebalance;
            (position, if rebalance { spec.priority.saturating_neg() } else { spec.priority })
        })
        .collect();
    Ok((classes, specs))
}
