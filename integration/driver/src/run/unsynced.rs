//! States that are not in storage when a node is told to stop, and how many are when it is killed.

use etf::read_u32;

use super::stage::Stage;
use crate::beam::Cluster;
use crate::beam::commands::Command;
use crate::{Error, Result};

/// The tolerance: two equal runs differ by a few percent.
const AT_LEAST: f64 = 0.95;

/// Increments every server once without storing the increment.
pub fn increment_all(cluster: &mut Cluster, stage: &Stage, servers: u32) -> Result<()> {
    let answer = cluster.call(stage.client, Command::IncrementAll { servers })?;
    let unsynced = read_u32(&answer, "unsynced")?;
    if unsynced == servers {
        return Ok(());
    }
    Err(Error::protocol(format!("{unsynced} of {servers} servers have something to store")))
}

/// How many servers have that increment in storage, wherever they run.
pub fn stored(cluster: &mut Cluster, stage: &Stage, servers: u32) -> Result<u32> {
    let answer = cluster.call(stage.client, Command::Stored { servers, counter: 1 })?;
    Ok(read_u32(&answer, "stored")?)
}

/// Whether clearly fewer states are in storage with `durable_handoff` than without it.
pub fn are_fewer(with: u32, without: u32) -> bool {
    f64::from(with) < AT_LEAST * f64::from(without)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_difference_in_states_does_not_count_as_fewer() {
        assert!(are_fewer(900, 1_000));
        assert!(!are_fewer(990, 1_000) && !are_fewer(2_000, 1_000) && !are_fewer(0, 0));
    }
}
