//! Renders a report as a table on the terminal and as a page with a plot.

pub mod page;
pub mod plot;
pub mod rows;
pub mod shares;
pub mod table;

#[cfg(test)]
pub mod fixture;

use crate::report::Report;
use crate::report::nodes::started_on;

/// Name and version of DurableServer, or of the stand-in.
pub fn host(report: &Report) -> String {
    let host = &report.versions.durable_server;
    match host.kind.as_str() {
        "external" => format!("DurableServer {}", host.version),
        _ => format!("DurableServer {} (this project's stand-in)", host.version),
    }
}

/// The versions of Elixir and OTP: those of the clients' node, or all of them in a mixed cluster.
pub fn versions(report: &Report) -> String {
    let mixed = report.settings.releases.are_mixed().then(|| report.modes.first()).flatten();
    mixed.map_or_else(
        || format!("Elixir {}, OTP {}", report.versions.elixir, report.versions.otp),
        |(_, mode)| format!("mixed: {}", started_on(&mode.nodes).into_keys().collect::<Vec<_>>().join("; ")),
    )
}
