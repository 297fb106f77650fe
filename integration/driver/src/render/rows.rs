//! The comparison, row by row, as text: the table and the page show the same.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::{DrainReport, ModeReport, Report};
use crate::settings::{Mode, Scenario};

/// Keeps a number and what belongs to it on one line.
const NBSP: char = '\u{a0}';

/// One row: a figure of every mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What the figure is.
    pub name: &'static str,
    /// What exactly is measured.
    pub meaning: &'static str,
    /// Its value in every mode, in the order of the report.
    pub values: Vec<String>,
}

/// The rows of a report.
pub fn rows(report: &Report) -> Vec<Row> {
    let row = |name, meaning, value: &dyn Fn(&ModeReport) -> String| Row {
        name,
        meaning,
        values: report.modes.iter().map(|(_, mode)| value(mode)).collect(),
    };
    let mut rows = vec![
        row("handed over", "running elsewhere before their node was gone, of all servers on stopping nodes", &|m| {
            format!("{} of {}", m.moved, m.total)
        }),
        row("gap p50", "from user terminate/2 to the next init", &|m| duration(m.gap_ms.p50)),
        row("gap p90", "nine of ten gaps are at most this", &|m| duration(m.gap_ms.p90)),
        row("gap p99", "99 of 100 gaps are at most this", &|m| duration(m.gap_ms.p99)),
        row("gap max", "the longest gap", &|m| duration(m.gap_ms.max)),
        row("drain", "from SIGTERM until nothing was left to do, over all stopped nodes", &|m| {
            duration(Some(m.drain_ms))
        }),
        row("all back after", "from the first SIGTERM until the last server was back", &|m| {
            m.recovery_ms.map_or("never".to_owned(), |ms| duration(Some(ms)))
        }),
        row("failed calls", "client calls without an answer; none is repeated", &|m| {
            format!("{} of {} ({})", grouped(m.failed_calls), grouped(m.calls), percent(m.failed_calls, m.calls))
        }),
        row("lost increments", "answered to a client, missing at the end", &|m| grouped(m.lost_increments)),
        row("counted twice", "in a counter, caused by no client", &|m| grouped(m.extra_increments)),
        row("double owners", "starts while another process of the server had not stopped", &|m| {
            m.double_owners.to_string()
        }),
        row("moves per server", "starts after the first one", &|m| format!("{:.2}", m.moves_per_server)),
        row("unreachable", "servers that did not answer at the end", &|m| m.unreachable.to_string()),
        row("store requests", "all kinds, from the warm-up to the end", &|m| store_ops(&m.store_ops)),
    ];
    rows.push(match report.settings.scenario {
        Scenario::Drain => row("went to", "servers of the stopped node, by the end", &|m| shares(&m.targets)),
        Scenario::Rolling => row("final share", "servers per node at the end", &|m| shares(&m.final_share)),
    });
    rows
}

/// One stopped node's figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrainRow {
    /// The mode in which it stopped.
    pub mode: String,
    /// The node.
    pub node: String,
    /// The figures, in the order of [`DRAIN_COLUMNS`].
    pub values: [String; 6],
}

/// The names of a [`DrainRow`]'s figures.
pub const DRAIN_COLUMNS: [&str; 6] = ["handed over", "gap p50", "gap p99", "gap max", "drain", "shutdown"];

/// Every stopped node of every mode.
pub fn drain_rows(report: &Report) -> Vec<DrainRow> {
    let of_mode = |(mode, of): &(Mode, ModeReport)| {
        let mode = mode.to_string();
        let row = move |drain: &DrainReport| DrainRow {
            mode: mode.clone(),
            node: drain.node.clone(),
            values: [
                format!("{} of {}", drain.moved, drain.total),
                duration(drain.gap_ms.p50),
                duration(drain.gap_ms.p99),
                duration(drain.gap_ms.max),
                duration(Some(drain.drain_ms)),
                duration(Some(drain.shutdown_ms)),
            ],
        };
        of.drains.iter().map(row).collect::<Vec<_>>()
    };
    report.modes.iter().flat_map(of_mode).collect()
}

/// What else there is to say about any mode.
pub fn notes(report: &Report) -> Vec<String> {
    let of_mode =
        |(mode, of): &(Mode, ModeReport)| of.notes.iter().map(|note| format!("{mode}: {note}")).collect::<Vec<_>>();
    report.modes.iter().flat_map(of_mode).collect()
}

/// The comparison in a sentence, where handoff ran together with something to compare it with.
pub fn verdicts(report: &Report) -> Vec<String> {
    let p50 = |mode| report.mode(mode).and_then(|of| of.gap_ms.p50).filter(|&ms| ms > 0.0);
    let Some(handoff) = p50(Mode::Handoff) else {
        return Vec::new();
    };
    let mut verdicts = Vec::new();
    if let Some(graceful) = p50(Mode::Graceful) {
        verdicts.push(format!("The median gap with handoff is 1/{:.0} of graceful shutdown's.", graceful / handoff));
    }
    if let Some(naive) = p50(Mode::Naive) {
        verdicts.push(format!("The median gap with handoff is {:.2} times the naive handoff's.", handoff / naive));
    }
    verdicts
}

/// A duration with three significant digits.
pub fn duration(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 100.0 => format!("{ms:.1} ms"),
        Some(ms) if ms < 1_000.0 => format!("{ms:.0} ms"),
        Some(ms) if ms < 10_000.0 => format!("{:.2} s", ms / 1_000.0),
        Some(ms) => format!("{:.1} s", ms / 1_000.0),
    }
}

/// A count with its thousands set apart.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("decimal digits are ASCII"))
        .collect();
    groups.join(",")
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}{NBSP}%", 100.0 * part as f64 / whole.max(1) as f64)
}

fn shares(shares: &BTreeMap<String, usize>) -> String {
    shares.iter().map(|(node, count)| format!("{node}{NBSP}{count}")).collect::<Vec<_>>().join(", ")
}

/// Requests by kind, without the store's gauges.
fn store_ops(ops: &BTreeMap<String, u64>) -> String {
    ["get", "put", "claim", "delete", "list"]
        .iter()
        .filter_map(|kind| {
            ops.get(*kind).filter(|&&count| count > 0).map(|&count| format!("{kind}{NBSP}{}", grouped(count)))
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn durations_keep_three_digits() {
        let shown = [0.5, 31.26, 208.4, 2_800.0, 44_300.0].map(|ms| duration(Some(ms)));
        assert_eq!(shown, ["0.50 ms", "31.3 ms", "208 ms", "2.80 s", "44.3 s"]);
        assert_eq!(duration(None), "-");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn every_row_has_a_value_for_every_mode() {
        let report = fixture::report();
        for row in rows(&report) {
            assert_eq!(row.values.len(), report.modes.len(), "{}", row.name);
        }
    }

    #[test]
    fn verdicts_need_something_to_compare() {
        let mut report = fixture::report();
        assert_eq!(
            verdicts(&report),
            [
                "The median gap with handoff is 1/1000 of graceful shutdown's.",
                "The median gap with handoff is 0.95 times the naive handoff's."
            ]
        );
        report.modes.retain(|(mode, _)| *mode == Mode::Graceful);
        assert!(verdicts(&report).is_empty());
    }
}
