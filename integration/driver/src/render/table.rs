//! The closing table.

use comfy_table::Table;

use super::rows::{DRAIN_COLUMNS, drain_rows, notes, rows, verdicts};
use super::{host, versions};
use crate::report::Report;
use crate::settings::Scenario;
use crate::tables;

/// The whole closing text: versions, the comparison, every drain of a rolling deploy, and the notes.
pub fn closing(report: &Report) -> String {
    let mut text = format!("{}, {}\n{}\n", host(report), versions(report), comparison(report));
    if !matches!(report.settings.scenario, Scenario::Drain | Scenario::ScaleOut) {
        text.push_str(&format!("{}\n", drains(report)));
    }
    for line in verdicts(report).into_iter().chain(notes(report)) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn comparison(report: &Report) -> Table {
    let names = report.modes.iter().map(|(mode, _)| mode.to_string());
    let mut table = tables::table([String::new()].into_iter().chain(names));
    for row in rows(report) {
        table.add_row(tables::row([row.name], row.values));
    }
    table
}

fn drains(report: &Report) -> Table {
    let mut table = tables::table(["", "node"].into_iter().chain(DRAIN_COLUMNS));
    for row in drain_rows(report) {
        table.add_row(tables::row([&row.mode, &row.node], row.values));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    #[test]
    fn the_table_has_the_host_the_modes_the_drains_and_the_notes() {
        let text = closing(&fixture::report());
        for expected in [
            "DurableServer 0.1.5 (this project's stand-in), Elixir 1.14.0, OTP 25",
            "graceful",
            "handoff",
            "44.3 s",
            "100 of 100",
            "old1",
            "graceful: 2 servers were not back",
            "1/1000 of graceful",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }

    #[test]
    fn a_run_with_one_drain_has_no_second_table() {
        let mut report = fixture::report();
        report.settings.scenario = Scenario::Drain;
        assert!(!closing(&report).contains("shutdown\u{a0}"));
        assert!(!closing(&report).contains("old1 "));
    }
}
