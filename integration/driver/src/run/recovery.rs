//! Waits, after the last node is gone, until every server answers again, and reads their counters.

use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::Result;
use crate::beam::Cluster;
use crate::beam::commands::{Command, Counter, Missing, read_counters, read_missing};
use crate::progress::ModeProgress;
use crate::settings::Settings;

/// The interval of polls of the registry. The clients still call, and frequent polls would disturb them.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How many missing servers a note lists.
const SOME: usize = 20;

/// Waits until the clients' registry has every server and every server answers. Returns whether that happened
/// within the settings' time limit.
pub fn wait(
    cluster: &mut Cluster,
    stage: &Stage,
    settings: &Settings,
    progress: &ModeProgress,
    notes: &mut Vec<String>,
) -> Result<bool> {
    progress.step("waiting until every server answers");
    let bound = settings.recovery_bound();
    let until = Instant::now() + bound;
    let mut next = Instant::now();
    let missing = cluster.wait("every server answering", bound * 2, |cluster| {
        progress.calls(cluster.heard.calls);
        if Instant::now() < next {
            return Ok(None);
        }
        let missing = look(cluster, stage, settings)?;
        next = Instant::now() + LOOK_EVERY;
        let back = u64::from(settings.servers).saturating_sub(missing.count);
        progress.amount(u32::try_from(back).unwrap_or(u32::MAX), settings.servers);
        Ok((missing.count == 0 || Instant::now() >= until).then_some(missing))
    })?;
    if missing.count > 0 {
        notes.push(not_back(&missing, bound));
    }
    Ok(missing.count == 0)
}

/// The servers that are not back. The registry is asked first, because it answers at once: a server that it
/// does not have cannot be called.
fn look(cluster: &mut Cluster, stage: &Stage, settings: &Settings) -> Result<Missing> {
    let unknown = read_missing(&cluster.call(stage.client, Command::Missing { servers: settings.servers })?)?;
    if unknown.count > 0 {
        return Ok(unknown);
    }
    let counters = counters(cluster, stage, settings)?;
    let silent = || counters.iter().filter(|counter| counter.node.is_none()).map(|counter| counter.key);
    Ok(Missing { count: silent().count() as u64, some: silent().take(SOME).collect() })
}

fn not_back(missing: &Missing, bound: Duration) -> String {
    let mut some = missing.some.iter().map(|key| format!("server {key}")).collect::<Vec<_>>().join(", ");
    if missing.count > missing.some.len() as u64 {
        some.push_str(", ...");
    }
    let seconds = bound.as_secs();
    format!("{} servers were not back {seconds} s after the last node was gone: {some}", missing.count)
}

/// Every server's counter: its own answer or, if it does not answer, the stored value.
pub fn counters(cluster: &mut Cluster, stage: &Stage, settings: &Settings) -> Result<Vec<Counter>> {
    read_counters(&cluster.call(stage.client, Command::Counters { servers: settings.servers })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(300);

    #[test]
    fn the_note_lists_a_few_of_many_missing_servers() {
        let note = not_back(&Missing { count: 3, some: vec![4, 9] }, BOUND);
        assert_eq!(note, "3 servers were not back 300 s after the last node was gone: server 4, server 9, ...");
        let note = not_back(&Missing { count: 1, some: vec![4] }, BOUND);
        assert!(note.ends_with(": server 4"), "{note}");
    }
}
