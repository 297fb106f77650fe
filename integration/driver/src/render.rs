//! A report for people: as a table on the terminal and as a page with a plot.

pub mod page;
pub mod plot;
pub mod rows;
pub mod table;

#[cfg(test)]
pub mod fixture;

use crate::report::Report;
use crate::report::nodes::started_on;

/// How to say that the stand-in is not the real thing; everywhere the version is shown.
pub fn host(report: &Report) -> String {
    let host = &report.versions.durable_server;
    match host.kind.as_str() {
        "external" => format!("DurableServer {}", host.version),
        _ => format!("DurableServer {} (this project's stand-in)", host.version),
    }
}

/// What the nodes ran on: the clients' node's release, in a mixed cluster every one.
pub fn versions(report: &Report) -> String {
    let mixed = report.settings.releases.are_mixed().then(|| report.modes.first()).flatten();
    mixed.map_or_else(
        || format!("Elixir {}, OTP {}", report.versions.elixir, report.versions.otp),
        |(_, mode)| format!("mixed: {}", started_on(&mode.nodes).into_keys().collect::<Vec<_>>().join("; ")),
    )
}
