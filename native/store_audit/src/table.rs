//! A report as text.

use std::fmt;

use crate::findings::{Findings, Gone, Report};

/// The findings of one kind that are listed. Further ones are counted.
const LISTED: usize = 20;

/// A few lines of counts, and one line for each finding.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} servers", self.servers)?;
        for (status, count) in &self.by_status {
            writeln!(out, "  {status:<22} {count:>8}")?;
        }
        writeln!(out, "\nowner                             running    others")?;
        for (owner, statuses) in &self.by_owner {
            let running = statuses.get("running").copied().unwrap_or_default();
            let all: u64 = statuses.values().sum();
            writeln!(out, "  {owner:<30} {running:>8}  {:>8}", all - running)?;
        }
        writeln!(out, "\nnode                              heartbeat")?;
        for node in &self.nodes {
            let state = match (node.fresh, node.draining) {
                (false, _) => "stale",
                (true, true) => "draining",
                (true, false) => "",
            };
            writeln!(out, "  {:<30} {:>10} ago  {state}", node.name, duration(node.heartbeat_age_ms))?;
        }
        section(out, "reservations that outlived their time", &self.outlived_reservations, |found| {
            format!("{}  for {}, over since {}", found.key, found.node, duration(found.outlived_ms))
        })?;
        section(out, "running on a node that does not run", &self.orphans, |found| {
            let why = match found.why {
                Gone::NoHeartbeat => "no heartbeat".to_owned(),
                Gone::StaleHeartbeat(age) => format!("last heartbeat {} ago", duration(age)),
                Gone::Restarted => "started again since".to_owned(),
            };
            let fate = if found.permanent { "" } else { ", not permanent: down until requested" };
            format!("{}  on {}: {why}{fate}", found.key, found.node)
        })?;
        section(out, "unreadable objects", &self.unreadable, |found| format!("{}  {}", found.key, found.why))
    }
}

fn section<T>(
    out: &mut fmt::Formatter<'_>,
    title: &str,
    findings: &Findings<T>,
    line: impl Fn(&T) -> String,
) -> fmt::Result {
    writeln!(out, "\n{}: {title}", findings.count)?;
    for found in findings.first.iter().take(LISTED) {
        writeln!(out, "  {}", line(found))?;
    }
    let listed = u64::try_from(findings.first.len().min(LISTED)).unwrap_or(u64::MAX);
    match findings.count - listed {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more"),
    }
}

fn duration(ms: i64) -> String {
    match ms {
        ..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{} s", ms / 1_000),
        600_000..36_000_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}
