//! The page of the documentation: a section for each fault, with its figures in a list. A table of them all is too
//! wide to read on a phone.

use super::Fault;
use super::table::{Row, Shown};

/// The line length of prose.
const WIDTH: usize = 110;

const INTRODUCTION: &str = "\
# Reliability

What happens to servers when something fails during a drain, and how that was tested. `./integration/faults
--write-docs` writes this page, or with `--stand-in FILE,... --real FILE,...` writes it from the `--json` of
earlier runs. `./integration/faults --only NAME` runs one fault, and `--seed` repeats a run.

Every run starts real operating-system nodes: application nodes, a node with clients that call all the time, a
node that acts as the object store and, for some faults, `durable-handoff-node`. Every second server stores
each increment before it answers. The others store their state when they stop, as most servers in production
do. Clients ask those for a sync with one in ten increments, and read the store after each.

A run passes if all of the following holds after the fault:

1. Every server runs exactly once, on one node, and answers, within the fault's bound after its last act.
2. No acknowledged increment is lost, with two exceptions: its server stores its state only when it stops, and
   the node was killed before that; or the server's final write failed in an outage of the store, and the
   drain's report counts the server as `state_not_stored`. No state is older than its last acknowledged sync or
   the last orderly stop that was stored. No increment is counted twice, and the rest of every state is
   unchanged.
3. No server starts while another process of it has not stopped.
4. No reservation outlives its time.
5. No process and no table of the library is left behind on a node that ran before the fault and still runs.
6. No server is started on a node more than a second after the node was told to stop.
7. No drain delays a shutdown by more than 200 ms beyond its deadline, by the monotonic clock of its node. The
   deadline is at most `timeout_ms` after the drain began.
8. What *Then* says about moves is so: all servers are moved, or none, or none to one node; and the Rust node
   decides, or is lost on the way. A fault in the middle of a drain comes before its end.

Runs use shorter times than production (in brackets), so that they take seconds. Nodes look for lost servers
every 2 s (60 s), send heartbeats every 0.5 s (10 s), and use a heartbeat for 8 s (30 s). They use it for 30 s
in runs with a wrong clock, with a drain of one second, with many servers or large states, and where all
servers have to move, and for 20 s in runs with a store outage of 10 s. An attempt may take 3 s (15 s). Where
the fault comes in the middle of a drain, a request to the store takes 40 ms and 16 servers move at a time. In
production a sweep finds servers correspondingly later. OTP's `global` is set not to disconnect further nodes
when two lose their connection.

DurableServer ends all servers of a node that cannot read the heartbeats of the cluster. An outage of the store
that begins just then, here in 80 ms of every 600, loses what has changed on that node since the last sync, with
a drain or without. Such a run does not hold.";

const LEGEND: &str = "\
*Held*: runs in which all of this held. *Drain*: the longest time from SIGTERM, or the kill, until nothing ran \
on the nodes that ended and everything that they moved ran elsewhere. *Settled*: the longest time from the \
last act of the fault, or the end of the last node that it ended, until every server ran exactly once and \
answered. *Moved*: servers that ran elsewhere before their node was gone, of all servers on nodes that ended. \
The others were found by sweeps, or started by nodes that had accepted them.";

/// The page, with the figures of the runs here and on the real DurableServer, which may lack some faults.
pub fn page(faults: &[&Fault], shown: &[Shown], real: &[Shown]) -> String {
    let (here, there) = (Row::all(faults, shown), Row::all(faults, real));
    let mut page =
        format!("{INTRODUCTION}\n\n{}\n\n{}\n\n## The faults\n", wrapped(&hosts(shown, real), 0), wrapped(LEGEND, 0));
    for (here, there) in here.iter().zip(&there) {
        let Fault { name, done, happens, setup, .. } = here.fault;
        let text = format!("{done} *Then:* {happens} Bound: {} s.", setup.bound_s);
        page.push_str(&format!("\n### `{name}`\n\n{}\n\n", wrapped(&text, 0)));
        for (host, row) in [("Stand-in", here), ("DurableServer", there)] {
            page.push_str(&format!("{}\n", wrapped(&format!("- {host}: {}.", figures(row)), 2)));
        }
    }
    page
}

/// The results of the runs of one fault, which may have no runs.
fn figures(row: &Row) -> String {
    if row.runs.is_empty() {
        return "not run".to_owned();
    }
    let stored = row.stored().map(|states| format!(", states in storage {states}")).unwrap_or_default();
    format!("held {}, drain {}, settled {}, moved {}{stored}", row.passed(), row.drain(), row.settled(), row.moved())
}

/// The versions on which the faults ran, and by how much shutdowns missed their deadlines there.
fn hosts(shown: &[Shown], real: &[Shown]) -> String {
    let named = |runs: &[Shown]| {
        let mut names: Vec<&str> =
            runs.iter().map(|run| run.durable_server.as_str()).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        let latest = runs.iter().filter_map(|run| run.late_ms).reduce(f64::max);
        let latest = latest.map(|ms| format!(" (the latest shutdown went on {ms:.0} ms after its deadline)"));
        if names.is_empty() { "not run".to_owned() } else { names.join(", ") + &latest.unwrap_or_default() }
    };
    format!("*Stand-in*: {}. *DurableServer*: {}.", named(shown), named(real))
}

/// The text in lines of [`WIDTH`] characters, all but the first indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{}{word}", " ".repeat(indent)));
        } else if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::catalogue::all;
    use crate::faults::checks::Stored;

    fn shown(fault: &Fault, host: &str, broken: &[&str]) -> Shown {
        let (fault, durable_server) = (fault.name.to_owned(), host.to_owned());
        let broken = broken.iter().map(|&reason| reason.to_owned()).collect();
        Shown { fault, durable_server, drain_s: 1.25, settled_s: 3.25, late_ms: Some(12.0), broken, ..Shown::default() }
    }

    #[test]
    fn a_fault_without_a_run_on_the_real_durable_server_is_marked() {
        let faults = all();
        let real = |broken: &[&str]| shown(faults[0], "DurableServer 0.1.7 (external)", broken);
        let real = [real(&[]), real(&["3 acknowledged increments are lost"])];
        // Files for `--real` may be older and lack fields.
        let mut json = serde_json::to_value(&real).unwrap();
        json[1].as_object_mut().unwrap().remove("late_ms");
        let real: Vec<Shown> = serde_json::from_value(json).unwrap();
        let stored = Some(Stored { with: 700, without: 640 });
        let here = [0, 1].map(|at| Shown { stored, ..shown(faults[at], "DurableServer 0.1.5 (stand-in)", &[]) });

        let page = page(&faults[..2], &here, &real);
        let real_figures = |at: usize| {
            let (_before, section) = page.split_once(&format!("### `{}`", faults[at].name)).unwrap();
            section.lines().find(|line| line.starts_with("- DurableServer: ")).unwrap().to_owned()
        };
        assert!(real_figures(0).contains("held 1 of 2, drain 1.2 s, settled 3.2 s, moved "), "{page}");
        assert_eq!(real_figures(1), "- DurableServer: not run.", "{page}");
        for expected in
            ["DurableServer 0.1.5 (stand-in) (the latest shutdown", "0.1.7 (external)", "700, and 640 without"]
        {
            assert!(page.replace("\n  ", " ").replace('\n', " ").contains(expected), "no {expected:?} in {page}");
        }
    }

    #[test]
    fn the_page_is_readable_in_a_narrow_window() {
        let faults = all();
        let here: Vec<Shown> = faults.iter().map(|fault| shown(fault, "DurableServer 0.1.5 (stand-in)", &[])).collect();
        let page = page(&faults, &here, &[]);
        let long = page.lines().find(|line| line.chars().count() > WIDTH + 10);
        assert_eq!(long, None);
        assert!(!page.contains("|---"), "{page}");
        for fault in faults {
            assert_eq!(page.matches(&format!("### `{}`\n", fault.name)).count(), 1, "{}", fault.name);
        }
    }
}
