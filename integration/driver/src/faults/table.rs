//! The results of runs of faults, as a table and as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Fault;
use super::checks::{Found, Stored};
use crate::durations::tenths;
use crate::report::nodes::started_on;
use crate::tables;

/// One run. It may be read from a file that an older version has written with `--json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Shown {
    pub fault: String,
    pub seed: u64,
    /// Version and kind of the DurableServer; empty for a run that ended before its checks.
    pub durable_server: String,
    /// From the last act of the fault until every server ran exactly once and answered, in seconds.
    pub settled_s: f64,
    /// Seconds from SIGTERM until nothing ran on the draining nodes and everything that they moved was up.
    pub drain_s: f64,
    /// How long after its deadline the latest shutdown continued, in milliseconds; `None` if no node stopped
    /// gracefully.
    pub late_ms: Option<f64>,
    pub stored: Option<Stored>,
    /// Servers of ended nodes.
    pub total: usize,
    /// Servers that ran elsewhere before their node was gone.
    pub moved: usize,
    /// The servers of ended nodes by target, at the end.
    pub targets: BTreeMap<String, usize>,
    /// Executor and end of each drain, and the fallbacks before.
    pub decided: Vec<String>,
    /// Servers that started on each release of Elixir and OTP, the first start included.
    pub releases: BTreeMap<String, usize>,
    pub calls: u64,
    /// Calls without an answer.
    pub failed_calls: u64,
    pub broken: Vec<String>,
}

impl Shown {
    /// A run that reached its checks.
    pub fn new(fault: &Fault, seed: u64, found: Found) -> Self {
        let Found { settled_s, figures, versions, late_ms, stored, decided, broken } = found;
        Self {
            fault: fault.name.to_owned(),
            seed,
            durable_server: versions.to_string(),
            settled_s,
            drain_s: figures.drain_ms / 1_000.0,
            late_ms,
            stored,
            total: figures.total,
            moved: figures.moved,
            targets: figures.targets,
            decided,
            releases: started_on(&figures.nodes),
            calls: figures.calls,
            failed_calls: figures.failed_calls,
            broken,
        }
    }

    /// A run that ended before its checks.
    pub fn failed(fault: &Fault, seed: u64, reason: String) -> Self {
        Self { fault: fault.name.to_owned(), seed, broken: vec![reason], ..Self::default() }
    }

    pub fn passed(&self) -> bool {
        self.broken.is_empty()
    }

    pub fn line(&self) -> String {
        if !self.passed() {
            return format!("FAILED: {}", self.broken.join("; "));
        }
        let stored = self.stored.map(|Stored { with, without }| format!(", {with} states stored, {without} without"));
        let stored = stored.unwrap_or_default();
        format!("ok, settled after {}, {} of {} moved{stored}", tenths(self.settled_s), self.moved, self.total)
    }
}

/// The sum of a fault's runs.
#[derive(Debug)]
pub struct Row<'a> {
    pub fault: &'a Fault,
    /// Its runs, perhaps none.
    pub runs: Vec<&'a Shown>,
}

impl<'a> Row<'a> {
    /// The runs of each fault, in the order of the catalogue.
    pub fn all(faults: &[&'a Fault], shown: &'a [Shown]) -> Vec<Self> {
        let runs = |fault: &Fault| shown.iter().filter(|run| run.fault == fault.name).collect();
        faults.iter().map(|fault| Row { fault, runs: runs(fault) }).collect()
    }

    /// The number of runs in which all guarantees held.
    pub fn passed(&self) -> String {
        format!("{} of {}", self.runs.iter().filter(|run| run.passed()).count(), self.runs.len())
    }

    pub fn drain(&self) -> String {
        self.longest(|run| run.drain_s)
    }

    /// The longest time until every server ran exactly once again.
    pub fn settled(&self) -> String {
        self.longest(|run| run.settled_s)
    }

    fn longest(&self, of: fn(&Shown) -> f64) -> String {
        tenths(self.runs.iter().map(|run| of(run)).fold(0.0, f64::max))
    }

    pub fn moved(&self) -> String {
        let sum = |count: fn(&Shown) -> usize| self.runs.iter().map(|run| count(run)).sum::<usize>();
        format!("{} of {}", sum(|run| run.moved), sum(|run| run.total))
    }

    /// States in storage at the kill, over all runs, where they were counted.
    pub fn stored(&self) -> Option<String> {
        let runs: Vec<Stored> = self.runs.iter().filter_map(|run| run.stored).collect();
        let sum = |count: fn(&Stored) -> u32| runs.iter().map(count).sum::<u32>();
        (!runs.is_empty())
            .then(|| format!("{}, and {} without durable_handoff", sum(|of| of.with), sum(|of| of.without)))
    }
}

pub fn closing(faults: &[&Fault], shown: &[Shown]) -> String {
    let mut table =
        tables::table(["fault", "passed", "drain at most", "settled after at most", "moved", "failed seeds"]);
    for row in Row::all(faults, shown).iter().filter(|row| !row.runs.is_empty()) {
        let failed: Vec<_> = row.runs.iter().filter(|run| !run.passed()).map(|run| run.seed.to_string()).collect();
        let settled = format!("{} (bound {} s)", row.settled(), row.fault.setup.bound_s);
        let cells = [row.fault.name.to_owned(), row.passed(), row.drain(), settled, row.moved(), failed.join(", ")];
        table.add_row(cells);
    }
    format!("{table}\n{}", mixed(shown))
}

/// For mixed clusters, how many servers started on which release, over all runs.
fn mixed(shown: &[Shown]) -> String {
    let mut releases: BTreeMap<&String, usize> = BTreeMap::new();
    for (release, started) in shown.iter().flat_map(|run| &run.releases) {
        *releases.entry(release).or_default() += started;
    }
    let on = releases.iter().map(|(release, started)| format!("{started} on {release}")).collect::<Vec<_>>();
    if on.len() > 1 { format!("Servers started: {}.\n", on.join("; ")) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::catalogue::all;

    fn shown(fault: &Fault, broken: &[&str]) -> Shown {
        let broken = broken.iter().map(|&reason| reason.to_owned()).collect();
        Shown {
            fault: fault.name.to_owned(),
            seed: 7,
            settled_s: 3.25,
            total: 120,
            moved: 119,
            broken,
            ..Shown::default()
        }
    }

    #[test]
    fn a_row_sums_up_the_runs_of_a_fault_and_has_the_seeds_of_failures() {
        let faults = all();
        let runs = [shown(faults[0], &[]), shown(faults[0], &["3 acknowledged increments are lost"])];
        let table = closing(&faults, &runs);
        for expected in [faults[0].name, "1 of 2", "3.2 s", "238 of 240", "7"] {
            assert!(table.contains(expected), "no {expected:?} in {table}");
        }
        assert!(!table.contains(faults[1].name), "a fault without a run has a row");
    }

    #[test]
    fn the_table_of_a_mixed_cluster_has_the_servers_started_on_each_release() {
        let faults = all();
        let on = |release: &str| BTreeMap::from([(release.to_owned(), 100)]);
        let run = |release| Shown { releases: on(release), ..shown(faults[0], &[]) };
        let alike = closing(&faults, &[run("OTP 25"), run("OTP 25")]);
        assert!(!alike.contains("Servers started"), "{alike}");
        let mixed = closing(&faults, &[run("OTP 25"), run("OTP 29"), run("OTP 29")]);
        assert!(mixed.ends_with("Servers started: 100 on OTP 25; 200 on OTP 29.\n"), "{mixed}");
    }

    #[test]
    fn a_line_has_all_violations_or_the_stored_states() {
        assert_eq!(shown(all()[0], &["one thing", "another"]).line(), "FAILED: one thing; another");
        let stored = Some(Stored { with: 700, without: 640 });
        let line = Shown { stored, ..shown(all()[0], &[]) }.line();
        assert_eq!(line, "ok, settled after 3.2 s, 119 of 120 moved, 700 states stored, 640 without");
    }
}
