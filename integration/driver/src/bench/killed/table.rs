//! The table and the JSON.

use serde::Serialize;

use crate::durations::tenths;
use crate::quantiles::millis;
use crate::report::Versions;
use crate::run::unsynced;
use crate::tables;

/// All measurements.
#[derive(Debug, Serialize)]
pub struct Report {
    pub bench: &'static str,
    /// The versions.
    #[serde(flatten)]
    pub versions: Versions,
    /// Servers of the node that is killed.
    pub servers: u32,
    /// A child stops before the servers and takes this long.
    pub slow_child_ms: u32,
    pub rows: Vec<Row>,
}

/// The measurements with one store and one time of the kill.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Where states are kept.
    pub store: String,
    /// When the node was killed, in seconds after SIGTERM.
    pub after_s: u32,
    /// With DurableServer's own shutdown.
    pub without: AtKill,
    /// With `durable_handoff`.
    pub with: AtKill,
}

/// The counts when the node was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AtKill {
    /// States in storage that are not older than before SIGTERM.
    pub stored: u32,
    /// Servers that had started elsewhere.
    pub started: u32,
    /// When the node had stopped by itself, in milliseconds after SIGTERM; `None` if it was killed.
    pub stopped_after_ms: Option<u64>,
}

impl AtKill {
    fn shown(&self) -> String {
        // The function formats microseconds as milliseconds, so milliseconds become seconds.
        let stopped = self.stopped_after_ms.map(|ms| format!(", stopped after {}", tenths(millis(ms))));
        format!("{}{}", self.stored, stopped.unwrap_or_default())
    }
}

const COLUMNS: [&str; 6] =
    ["store", "killed after", "stored without", "stored with handoff", "running elsewhere", "held"];

impl Report {
    /// The table as text.
    pub fn table(&self) -> String {
        let mut table = tables::table(COLUMNS);
        for row in &self.rows {
            let held = if row.fewer().is_none() { "yes" } else { "NO" };
            let figures = [row.without.shown(), row.with.shown(), row.with.started.to_string(), held.to_owned()];
            table.add_row(tables::row([&row.store, &format!("{} s", row.after_s)], figures));
        }
        format!("States of {} servers in storage when their node is killed; {}\n{table}\n", self.servers, self.versions)
    }

    /// The measurements with fewer stored states with `durable_handoff` than without.
    pub fn broken(&self) -> Vec<String> {
        self.rows.iter().filter_map(Row::fewer).collect()
    }
}

impl Row {
    fn fewer(&self) -> Option<String> {
        let Self { store, after_s, without: AtKill { stored: without, .. }, with: AtKill { stored: with, .. } } = self;
        unsynced::are_fewer(*with, *without).then(|| {
            format!("{store}, killed after {after_s} s: {with} states stored with durable_handoff, {without} without")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    fn report(without: u32, with: u32) -> Report {
        let at_kill = |stored| AtKill { stored, started: 30, stopped_after_ms: None };
        let without = AtKill { stopped_after_ms: Some(1_740), ..at_kill(without) };
        let rows = vec![Row { store: "slots".into(), after_s: 2, without, with: at_kill(with) }];
        Report { bench: "killed", versions: fixture::report().versions, servers: 5_000, slow_child_ms: 0, rows }
    }

    #[test]
    fn fewer_stored_states_than_without_handoff_are_reported() {
        assert!(report(1_000, 990).broken().is_empty());
        let broken = report(1_000, 900).broken();
        assert_eq!(broken, ["slots, killed after 2 s: 900 states stored with durable_handoff, 1000 without"]);
    }

    #[test]
    fn the_table_has_the_time_at_which_a_node_stopped_by_itself() {
        let table = report(1_000, 900).table();
        for expected in ["1000, stopped after 1.7 s", "900", "NO", "30"] {
            assert!(table.contains(expected), "no {expected:?} in {table}");
        }
    }
}
