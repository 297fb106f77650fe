//! A report for people: as a table on the terminal and as a page with a plot.

pub mod page;
pub mod plot;
pub mod rows;
pub mod table;

#[cfg(test)]
pub mod fixture;

use crate::report::Report;

/// How to say that the stand-in is not the real thing; everywhere the version is shown.
pub fn host(report: &Report) -> String {
    let host = &report.versions.durable_server;
    match host.kind.as_str() {
        "external" => format!("DurableServer {}", host.version),
        _ => format!("DurableServer {} (this project's stand-in)", host.version),
    }
}
