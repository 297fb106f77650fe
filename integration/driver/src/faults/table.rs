//! What runs of faults have shown, as a table, as JSON, and as the page of the documentation.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, ContentArrangement, Table};
use serde::{Deserialize, Serialize};

use super::Fault;
use super::checks::Found;
use crate::report::nodes::started_on;

/// One run.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The fault's name.
    pub fault: &'static str,
    /// The run's seed.
    pub seed: u64,
    /// The DurableServer it ran on: version and kind; empty for a run that ended before its checks.
    pub durable_server: String,
    /// From the last act of the fault until every server ran exactly once and answered, in seconds.
    pub settled_s: f64,
    /// From SIGTERM until nothing ran on the draining nodes any more and what they handed over was up, in seconds.
    pub drain_s: f64,
    /// Servers of ended nodes.
    pub total: usize,
    /// Of these, running elsewhere before their node was gone.
    pub moved: usize,
    /// Where servers of ended nodes went, by the end.
    pub targets: BTreeMap<String, usize>,
    /// Who decided at the end of each drain and how it ended, and what took over before.
    pub decided: Vec<String>,
    /// Servers that started on each release of Elixir and OTP, the first start included.
    pub releases: BTreeMap<String, usize>,
    /// Client calls.
    pub calls: u64,
    /// Of these, without an answer.
    pub failed_calls: u64,
    /// What did not hold.
    pub broken: Vec<String>,
}

impl Shown {
    /// A run that came to its checks.
    pub fn new(fault: &Fault, seed: u64, found: Found) -> Self {
        let Found { settled_s, figures, versions, decided, broken } = found;
        Self {
            fault: fault.name,
            seed,
            durable_server: versions.to_string(),
            settled_s,
            drain_s: figures.drain_ms / 1_000.0,
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
        Self {
            fault: fault.name,
            seed,
            durable_server: String::new(),
            settled_s: 0.0,
            drain_s: 0.0,
            total: 0,
            moved: 0,
            targets: BTreeMap::new(),
            decided: Vec::new(),
            releases: BTreeMap::new(),
            calls: 0,
            failed_calls: 0,
            broken: vec![reason],
        }
    }

    /// Whether everything held.
    pub fn passed(&self) -> bool {
        self.broken.is_empty()
    }

    /// In a line.
    pub fn line(&self) -> String {
        match self.broken.as_slice() {
            [] => format!("ok, settled after {:.1} s, {} of {} handed over", self.settled_s, self.moved, self.total),
            broken => format!("FAILED: {}", broken.join("; ")),
        }
    }
}

/// A run on the real DurableServer, as read from a file that `--json` wrote.
#[derive(Debug, Deserialize)]
pub struct RealRun {
    fault: String,
    durable_server: String,
    settled_s: f64,
    drain_s: f64,
    broken: Vec<String>,
}

/// What the real one has shown of a fault, in a cell.
fn on_real(fault: &Fault, real: &[RealRun]) -> String {
    let runs: Vec<_> = real.iter().filter(|run| run.fault == fault.name).collect();
    if runs.is_empty() {
        return "not run".to_owned();
    }
    let longest = |of: fn(&RealRun) -> f64| runs.iter().map(|run| of(run)).fold(0.0, f64::max);
    let held = runs.iter().filter(|run| run.broken.is_empty()).count();
    let (drain_s, settled_s) = (longest(|run| run.drain_s), longest(|run| run.settled_s));
    format!("{held} of {}; {drain_s:.1} s, {settled_s:.1} s", runs.len())
}

/// A fault's runs, summed up.
struct Row<'a> {
    fault: &'a Fault,
    runs: Vec<&'a Shown>,
}

impl Row<'_> {
    fn passed(&self) -> String {
        format!("{} of {}", self.runs.iter().filter(|run| run.passed()).count(), self.runs.len())
    }

    fn longest(&self, of: fn(&Shown) -> f64) -> f64 {
        self.runs.iter().map(|run| of(run)).fold(0.0, f64::max)
    }

    fn drain(&self) -> String {
        format!("{:.1} s", self.longest(|run| run.drain_s))
    }

    fn settled(&self) -> String {
        format!("{:.1} s (bound {} s)", self.longest(|run| run.settled_s), self.fault.setup.bound_s)
    }

    fn moved(&self) -> String {
        let sum = |count: fn(&Shown) -> usize| self.runs.iter().map(|run| count(run)).sum::<usize>();
        format!("{} of {}", sum(|run| run.moved), sum(|run| run.total))
    }
}

fn rows<'a>(faults: &[&'a Fault], shown: &'a [Shown]) -> Vec<Row<'a>> {
    faults
        .iter()
        .map(|fault| Row { fault, runs: shown.iter().filter(|run| run.fault == fault.name).collect() })
        .filter(|row| !row.runs.is_empty())
        .collect()
}

/// The closing table.
pub fn closing(faults: &[&Fault], shown: &[Shown]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["fault", "passed", "drain at most", "settled after at most", "handed over", "failed seeds"]);
    for row in rows(faults, shown) {
        let failed: Vec<_> = row.runs.iter().filter(|run| !run.passed()).map(|run| run.seed.to_string()).collect();
        let cells =
            [row.fault.name.to_owned(), row.passed(), row.drain(), row.settled(), row.moved(), failed.join(", ")];
        table.add_row(cells.map(Cell::new));
    }
    format!("{table}\n{}", mixed(shown))
}

/// In mixed clusters how many servers started on which release, over all runs.
fn mixed(shown: &[Shown]) -> String {
    let mut releases: BTreeMap<&String, usize> = BTreeMap::new();
    for (release, started) in shown.iter().flat_map(|run| &run.releases) {
        *releases.entry(release).or_default() += started;
    }
    let on = releases.iter().map(|(release, started)| format!("{started} on {release}")).collect::<Vec<_>>();
    if on.len() > 1 { format!("Servers started: {}.\n", on.join("; ")) } else { String::new() }
}

const INTRODUCTION: &str = "\
# Reliability

What happens to servers when something fails in the middle of a drain, and how that was shown. This page is written by
`./integration/faults --write-docs`; `./integration/faults --only NAME` runs one fault, `--seed` repeats a run.

Every run starts real operating-system nodes: application nodes, a node with clients that call all the while, a node that plays the object
store and, where the Rust node takes part, `durable-handoff-node`. Every second server stores each increment before it answers. The others
store their state when they stop, as most servers in production do; clients ask them for a sync with one in ten increments, and look into
the store after each. After the fault these have to hold, or the run has failed:

1. Every server runs exactly once, on one node, and answers, within the fault's bound after its last act.
2. No acknowledged increment is lost, but one that was not to be stored and whose server was cut off (its node was killed). No state is
   older than its last sync that was answered, or than its last stop in order. No increment is counted twice, and the rest of every state
   is what it was.
3. No server started while another process of it had not stopped.
4. No reservation outlives its time.
5. No process and no table of the library is left on a node that was there before and is there still.
6. No server is started on a node that was told to stop a second before.
7. No node waits for its drain longer than its `timeout_ms`.

For runs of seconds instead of minutes, nodes look for lost servers every 2 s (60 s in production), send heartbeats every 0.5 s (10 s), and
count on them for 8 s (30 s; the same where a clock is wrong, 20 s where the store is out for 10 s); an attempt may take 3 s (15 s). What is
found by a sweep is found that much later in production. OTP's `global` is told not to part further nodes when two lose sight of each other.
";

/// The page of the documentation.
pub fn page(faults: &[&Fault], shown: &[Shown], real: &[RealRun]) -> String {
    let mut page = format!(
        "{INTRODUCTION}\n{}\n\n| fault | what is done | what happens | held | drain at most | settled after at most | handed over | on the real one: held; drain, settled |\n\
         |---|---|---|---|---|---|---|---|\n",
        hosts(shown, real)
    );
    for row in rows(faults, shown) {
        page.push_str(&format!(
            "| `{}` | {} | {} | {} | {} | {} | {} | {} |\n",
            row.fault.name,
            row.fault.done,
            row.fault.happens,
            row.passed(),
            row.drain(),
            row.settled(),
            row.moved(),
            on_real(row.fault, real)
        ));
    }
    page.push_str(
        "\n*Drain*: from SIGTERM, or the kill, until nothing ran on the nodes that ended and everything they handed over was up. \
         *Settled*: from the last act of the fault, and the end of every node it ended, until every server ran exactly once and answered. \
         *Handed over*: running elsewhere before their node was gone, of all servers on nodes that ended; the rest was found by sweeps, or started by the nodes it was handed to.\n",
    );
    page
}

/// What the columns ran on.
fn hosts(shown: &[Shown], real: &[RealRun]) -> String {
    let named = |names: Vec<&str>| {
        let mut names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { "not run".to_owned() } else { names.join(", ") }
    };
    let here = named(shown.iter().map(|run| run.durable_server.as_str()).collect());
    let there = named(real.iter().map(|run| run.durable_server.as_str()).collect());
    format!("The figures are from {here}; those of the last column from the real one: {there}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::catalogue::all;

    fn shown(fault: &Fault, broken: &[&str]) -> Shown {
        let broken = broken.iter().map(|&reason| reason.to_owned()).collect();
        Shown { settled_s: 3.25, total: 120, moved: 119, broken, ..Shown::failed(fault, 7, String::new()) }
    }

    #[test]
    fn a_row_sums_up_a_faults_runs_and_names_the_seeds_that_failed() {
        let faults = all();
        let runs = [shown(faults[0], &[]), shown(faults[0], &["3 acknowledged increments are lost"])];
        let table = closing(&faults, &runs);
        for expected in [faults[0].name, "1 of 2", "3.2 s", "238 of 240", "7"] {
            assert!(table.contains(expected), "no {expected:?} in {table}");
        }
        assert!(!table.contains(faults[1].name), "a fault without a run has a row");
        assert!(page(&faults, &runs, &[]).contains(faults[0].happens));
    }

    #[test]
    fn the_page_has_what_a_run_on_the_real_one_wrote() {
        let faults = all();
        let on = |host: &str, run| Shown { durable_server: host.to_owned(), drain_s: 1.25, ..run };
        let real = [
            on("DurableServer 0.1.7 (external)", shown(faults[0], &[])),
            on("DurableServer 0.1.7 (external)", shown(faults[0], &["3 acknowledged increments are lost"])),
        ];
        let real: Vec<RealRun> = serde_json::from_str(&serde_json::to_string(&real).unwrap()).unwrap();
        let here = [on("DurableServer 0.1.5 (stand-in)", shown(faults[0], &[])), shown(faults[1], &[])];
        let page = page(&faults, &here, &real);
        let hosts = "from DurableServer 0.1.5 (stand-in); those of the last column from the real one: DurableServer 0.1.7 (external).";
        for expected in ["| 1 of 2; 1.2 s, 3.2 s |", "| not run |", hosts] {
            assert!(page.contains(expected), "no {expected:?} in {page}");
        }
    }

    #[test]
    fn mixed_clusters_say_how_many_servers_started_on_which_release() {
        let faults = all();
        let on = |release: &str| BTreeMap::from([(release.to_owned(), 100)]);
        let run = |release| Shown { releases: on(release), ..shown(faults[0], &[]) };
        let alike = closing(&faults, &[run("OTP 25"), run("OTP 25")]);
        assert!(!alike.contains("Servers started"), "{alike}");
        let mixed = closing(&faults, &[run("OTP 25"), run("OTP 29"), run("OTP 29")]);
        assert!(mixed.ends_with("Servers started: 100 on OTP 25; 200 on OTP 29.\n"), "{mixed}");
    }

    #[test]
    fn a_line_of_a_failed_run_says_everything_that_did_not_hold() {
        let line = shown(all()[0], &["one thing", "another"]).line();
        assert_eq!(line, "FAILED: one thing; another");
    }
}
