//! The comparison, row by row, as text. Table and page show the same rows.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::durations::rounded;
use crate::quantiles::Quantiles;
use crate::report::nodes::started_on;
use crate::report::{DrainReport, ModeReport, NodeReport, Report, STORE_OPS};
use crate::settings::Scenario;
use crate::variant::{Client, Executor, Mode, Variant};

/// Keeps a number and its unit on one line.
const NBSP: char = '\u{a0}';

/// One row: a figure of every mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub name: &'static str,
    pub meaning: &'static str,
    /// Its value in every mode, in the order of the report.
    pub values: Vec<String>,
}

/// A figure: its name, its exact meaning, and its value in a mode.
type Figure = (&'static str, &'static str, fn(&ModeReport) -> String);

const ALWAYS: &[Figure] = &[
    ("moved", "running elsewhere before their node was gone, of all servers on stopping nodes", |m| {
        format!("{} of {}", m.moved, m.total)
    }),
    ("gap p50", "from user terminate/2 to the next init", |m| rounded(m.gap_ms.p50)),
    ("gap p90", "nine of ten gaps are at most this", |m| rounded(m.gap_ms.p90)),
    ("gap p99", "99 of 100 gaps are at most this", |m| rounded(m.gap_ms.p99)),
    ("gap max", "the longest gap", |m| rounded(m.gap_ms.max)),
    ("drain", "from SIGTERM until nothing was left to do; at the same time: until the last ended, else summed", |m| {
        rounded(Some(m.drain_ms))
    }),
    ("all back after", "from the first SIGTERM until the last server was back", |m| {
        m.recovery_ms.map_or("never".to_owned(), |ms| rounded(Some(ms)))
    }),
    ("failed calls", "client calls that came back without an answer; clients repeat none", |m| {
        format!("{} of {} ({})", grouped(m.failed_calls), grouped(m.calls), percent(m.failed_calls, m.calls))
    }),
    ("calls, draining", "p50, p99 and longest of calls while a node was stopping, waiting included", |m| {
        times(&m.call_ms_draining)
    }),
    ("calls, otherwise", "the same of all other calls", |m| times(&m.call_ms_otherwise)),
    ("lost increments", "answered to a client, missing at the end", |m| grouped(m.lost_increments)),
    ("counted twice", "in a counter, caused by no client", |m| grouped(m.extra_increments)),
    ("double owners", "starts while another process of the server had not stopped", |m| m.double_owners.to_string()),
    ("moves per server", "starts after the first one", |m| format!("{:.2}", m.moves_per_server)),
    ("unreachable", "servers that did not answer at the end", |m| m.unreachable.to_string()),
    ("altered states", "documents that differ from the start", |m| m.altered_states.to_string()),
];

const DECIDED: &[Figure] = &[("decided by", "drains by who decided in them, as their own reports say", |m| {
    if m.decided_by.is_empty() { "-".to_owned() } else { shares(&m.decided_by) }
})];

const WAITED: &[Figure] =
    &[("calls that waited", "for a server that moved: how many, and p50, p99 and longest wait", |m| {
        match &m.waited_ms {
            Quantiles { count: 0, .. } => "-".to_owned(),
            waited => format!("{}: {}", grouped(waited.count as u64), times(waited)),
        }
    })];

const STORE: &[Figure] = &[
    ("store requests", "all kinds, from the first SIGTERM to the end", |m| {
        m.store_ops.as_ref().map_or("-".to_owned(), store_ops)
    }),
    ("at the store", "requests served and in line, while nodes were stopping", |m| {
        m.store_load.map_or("-".to_owned(), |load| format!("mean {:.1}, max {}", load.mean, load.max))
    }),
];

const RELEASES: &[Figure] = &[
    ("on OTP", "release of each application node", |m| {
        let node = |of: &NodeReport| format!("{}{NBSP}{}", of.node, of.otp);
        m.nodes.iter().map(node).collect::<Vec<_>>().join(", ")
    }),
    ("started on", "servers that started on nodes of each release, the first start included", |m| {
        let on = |(release, count): (&String, &usize)| format!("{count} on {release}").replace(' ', "\u{a0}");
        started_on(&m.nodes).iter().map(on).collect::<Vec<_>>().join("; ")
    }),
];

const FURTHEST: &[Figure] = &[("furthest from its share", "the node that is, in percent of the mean", |m| {
    furthest(&m.final_share).map_or("-".to_owned(), |percent| format!("{percent:.1}{NBSP}%"))
})];

fn destinations(scenario: Scenario) -> &'static [Figure] {
    match scenario {
        Scenario::Drain => &[("went to", "servers of the stopped node, by the end", |m| shares(&m.targets))],
        Scenario::Together => &[("went to", "servers of the stopped nodes, by the end", |m| shares(&m.targets))],
        Scenario::Rolling | Scenario::ScaleOut => {
            &[("final share", "servers per node at the end", |m| shares(&m.final_share))]
        }
    }
}

pub fn rows(report: &Report) -> Vec<Row> {
    let settings = &report.settings;
    let figures = [
        (true, ALWAYS),
        (report.modes.iter().any(|(_, m)| !m.decided_by.is_empty()), DECIDED),
        (report.modes.iter().any(|(variant, _)| variant.client == Client::Handoff), WAITED),
        (settings.store.is_simulated(), STORE),
        (settings.releases.are_mixed(), RELEASES),
        (true, destinations(settings.scenario)),
        (settings.rebalance, FURTHEST),
    ];
    let shown = figures.into_iter().filter(|(shown, _)| *shown).flat_map(|(_, figures)| figures);
    let row = |&(name, meaning, value): &Figure| Row {
        name,
        meaning,
        values: report.modes.iter().map(|(_, mode)| value(mode)).collect(),
    };
    shown.map(row).collect()
}

/// One stopped node's figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrainRow {
    pub mode: String,
    /// The column's name in CSS classes.
    pub slug: String,
    pub node: String,
    pub values: [String; 6],
}

pub const DRAIN_COLUMNS: [&str; 6] = ["moved", "gap p50", "gap p99", "gap max", "drain", "shutdown"];

pub fn drain_rows(report: &Report) -> Vec<DrainRow> {
    let of_mode = |(mode, of): &(Variant, ModeReport)| {
        let (mode, slug) = (mode.name(), mode.slug());
        let row = move |drain: &DrainReport| DrainRow {
            mode: mode.clone(),
            slug: slug.clone(),
            node: drain.node.clone(),
            values: [
                format!("{} of {}", drain.moved, drain.total),
                rounded(drain.gap_ms.p50),
                rounded(drain.gap_ms.p99),
                rounded(drain.gap_ms.max),
                rounded(Some(drain.drain_ms)),
                rounded(Some(drain.shutdown_ms)),
            ],
        };
        of.drains.iter().map(row).collect::<Vec<_>>()
    };
    report.modes.iter().flat_map(of_mode).collect()
}

pub fn notes(report: &Report) -> Vec<String> {
    let of_mode =
        |(mode, of): &(Variant, ModeReport)| of.notes.iter().map(|note| format!("{mode}: {note}")).collect::<Vec<_>>();
    report.modes.iter().flat_map(of_mode).collect()
}

/// The comparison in sentences, if handoff ran together with another mode.
pub fn verdicts(report: &Report) -> Vec<String> {
    let p50 = |of: &ModeReport| of.gap_ms.p50.filter(|&ms| ms > 0.0);
    let embedded = |mode| report.mode(mode, Executor::Embedded);
    let mut verdicts = Vec::new();
    for (executor, who) in [(Executor::Embedded, "handoff"), (Executor::Node, "handoff and the Rust node")] {
        let Some(handoff) = report.mode(Mode::Handoff, executor).and_then(p50) else { continue };
        if let Some(graceful) = embedded(Mode::Graceful).and_then(p50) {
            verdicts.push(format!("The median gap with {who} is 1/{:.0} of graceful shutdown's.", graceful / handoff));
        }
        if let Some(naive) = embedded(Mode::Naive).and_then(p50) {
            verdicts.push(format!("The median gap with {who} is {:.2} times the naive handoff's.", handoff / naive));
        }
    }
    verdicts.extend(waiting_verdict(report));
    verdicts.extend(killed_verdict(report));
    verdicts
}

fn waiting_verdict(report: &Report) -> Option<String> {
    let (_, of) = report.modes.iter().find(|(v, _)| v.mode == Mode::Handoff && v.client == Client::Handoff)?;
    Some(format!(
        "Of {} calls with DurableHandoff.call during handoff, {} failed.",
        grouped(of.calls),
        grouped(of.failed_calls)
    ))
}

fn killed_verdict(report: &Report) -> Option<String> {
    let (_, killed) = report.modes.iter().find(|(variant, _)| variant.killed)?;
    let alive = report.mode(Mode::Handoff, Executor::Node)?;
    let added_s = (killed.drain_ms - alive.drain_ms) / 1_000.0;
    Some(format!(
        "With the Rust node killed in the middle {} of {} servers were moved; the drain took {added_s:.2} s longer.",
        killed.moved, killed.total
    ))
}

/// A count with separators between thousands.
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

fn times(ms: &Quantiles) -> String {
    [ms.p50, ms.p99, ms.max].map(|ms| rounded(ms).replace(' ', "\u{a0}")).join(" / ")
}

fn shares(shares: &BTreeMap<String, usize>) -> String {
    shares.iter().map(|(node, count)| format!("{node}{NBSP}{count}")).collect::<Vec<_>>().join(", ")
}

/// The largest difference of a node from the mean, in percent of the mean.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn furthest(shares: &BTreeMap<String, usize>) -> Option<f64> {
    let mean = shares.values().sum::<usize>() as f64 / shares.len().max(1) as f64;
    let most = shares.values().map(|&count| (count as f64 - mean).abs()).fold(0.0, f64::max);
    (mean > 0.0).then(|| 100.0 * most / mean)
}

/// Requests by kind, without the store's gauges.
fn store_ops(ops: &BTreeMap<String, u64>) -> String {
    STORE_OPS
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
    use crate::releases::Releases;
    use crate::render::fixture;

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_node_furthest_from_the_mean_is_found_above_and_below() {
        let of =
            |counts: &[usize]| furthest(&counts.iter().enumerate().map(|(n, &count)| (n.to_string(), count)).collect());
        assert_eq!(of(&[134, 133, 133, 0]), Some(100.0));
        assert_eq!(of(&[100, 104, 98, 98]), Some(4.0));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0, 0]), None);
    }

    #[test]
    fn every_row_has_a_value_for_every_mode() {
        let report = fixture::report();
        for row in rows(&report) {
            assert_eq!(row.values.len(), report.modes.len(), "{}", row.name);
        }
    }

    #[test]
    fn a_mixed_cluster_lists_the_versions_of_each_node() {
        let mut report = fixture::report();
        assert!(rows(&report).iter().all(|row| row.name != "on OTP"));
        report.settings.releases = Releases::new(&["one".to_owned(), "other".to_owned()]);
        for (_, mode) in &mut report.modes {
            (mode.nodes[1].otp, mode.nodes[1].elixir) = ("29".into(), "1.20.1".into());
        }
        let rows = rows(&report);
        let value = |name| rows.iter().find(|row| row.name == name).unwrap().values[0].clone();
        assert_eq!(value("on OTP"), "old1\u{a0}25, new1\u{a0}29, old2\u{a0}25");
        assert_eq!(
            value("started on"),
            "200 on Elixir 1.14.0, OTP 25; 100 on Elixir 1.20.1, OTP 29"
                .replace(' ', "\u{a0}")
                .replace(";\u{a0}", "; ")
        );
    }

    #[test]
    fn a_verdict_requires_two_modes() {
        let mut report = fixture::report();
        assert_eq!(
            verdicts(&report),
            [
                "The median gap with handoff is 1/1000 of graceful shutdown's.",
                "The median gap with handoff is 0.95 times the naive handoff's."
            ]
        );
        report.modes.retain(|(variant, _)| variant.mode == Mode::Graceful);
        assert!(verdicts(&report).is_empty());
    }
}
