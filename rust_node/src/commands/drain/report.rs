//! A drain's report, as a table and as JSON. JSON has the keys and units of the wire's report.

use std::collections::BTreeMap;
use std::fmt;

use handoff_core::{Reason, Report};
use serde::Serialize;

use super::DrainFlags;
use crate::commands::columns::{columns, duration_us};

/// See the module documentation.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    node: String,
    supervisor: String,
    dry_run: bool,
    ended: Option<&'static str>,
    total: u64,
    moved: u64,
    left: BTreeMap<&'static str, u64>,
    retried: u64,
    attempts: u64,
    failures: u64,
    duration_us: u64,
    gap_us: Gap,
    concurrency: Concurrency,
    targets: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Gap {
    count: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

#[derive(Debug, Serialize)]
struct Concurrency {
    last: u32,
    highest: u32,
}

impl Summary {
    pub(super) fn new(flags: &DrainFlags, report: Report) -> Self {
        let gap = report.gap;
        Summary {
            node: flags.node.clone(),
            supervisor: flags.supervisor.clone(),
            dry_run: flags.dry_run,
            ended: report.ended.map(handoff_core::Ended::name),
            total: report.total,
            moved: report.moved,
            left: report.left.iter().map(|(reason, count)| (reason.name(), *count)).collect(),
            retried: report.retried,
            attempts: report.attempts,
            failures: report.failures,
            duration_us: report.duration.0,
            gap_us: Gap { count: gap.count, p50: gap.p50, p90: gap.p90, p99: gap.p99, max: gap.max },
            concurrency: Concurrency { last: report.concurrency.last, highest: report.concurrency.highest },
            targets: report.targets.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
        }
    }

    /// Nothing was left that was there to be moved.
    pub(super) fn is_complete(&self) -> bool {
        self.left.iter().all(|(reason, count)| *count == 0 || *reason == Reason::Gone.name())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { node, supervisor, total, moved, .. } = self;
        if self.dry_run {
            writeln!(f, "{supervisor} on {node}, dry run: {moved} of {total} servers would move")?;
        } else {
            let took = duration_us(self.duration_us);
            let ended = self.ended.unwrap_or("not over");
            writeln!(f, "{supervisor} on {node}: {moved} of {total} servers moved in {took} ({ended})")?;
        }
        let mut rows: Vec<[String; 3]> = Vec::new();
        let mut row = |what: &str, name: &str, value: String| rows.push([what, name, &value].map(str::to_owned));
        let mut what = "left";
        for (reason, count) in self.left.iter().filter(|(_, count)| **count > 0) {
            row(std::mem::take(&mut what), reason, count.to_string());
        }
        let mut what = "targets";
        for (target, count) in &self.targets {
            row(std::mem::take(&mut what), target, count.to_string());
        }
        if self.gap_us.count > 0 {
            let Gap { p50, p90, p99, max, .. } = self.gap_us;
            let mut what = "gap";
            for (name, us) in [("p50", p50), ("p90", p90), ("p99", p99), ("max", max)] {
                row(std::mem::take(&mut what), name, duration_us(us));
            }
        }
        if !self.dry_run {
            let mut what = "attempts";
            for (name, value) in [
                ("started", self.attempts),
                ("failed", self.failures),
                ("servers retried", self.retried),
                ("in flight at most", self.concurrency.highest.into()),
                ("limit at the end", self.concurrency.last.into()),
            ] {
                row(std::mem::take(&mut what), name, value.to_string());
            }
        }
        f.write_str(&columns(&rows))
    }
}

#[cfg(test)]
mod tests {
    use handoff_core::Ended;
    use handoff_core::quantiles::Summary as Quantiles;
    use handoff_core::time::Micros;

    use handoff_core::AtATime;

    use super::*;

    fn summary(left: &[(Reason, u64)], dry_run: bool) -> Summary {
        let flags = DrainFlags {
            node: "a@h".to_owned(),
            supervisor: "MyApp.Durable".to_owned(),
            timeout_ms: None,
            dry_run,
            json: false,
        };
        let report = Report {
            total: 10,
            moved: 8,
            left: left.iter().copied().collect(),
            retried: 1,
            gap: Quantiles { count: 8, p50: 35_000, p90: 50_000, p99: 80_000, max: 1_250_000 },
            duration: Micros(2_900_000),
            targets: BTreeMap::from([("b@h".into(), 5), ("c@h".into(), 3)]),
            concurrency: AtATime { last: 8, highest: 12 },
            attempts: 11,
            failures: 1,
            ended: Some(Ended::Done),
        };
        Summary::new(&flags, report)
    }

    #[test]
    fn the_table_says_who_moved_where_and_who_was_left_and_why() {
        let text = summary(&[(Reason::NoTarget, 2)], false).to_string();
        let expected = "\
MyApp.Durable on a@h: 8 of 10 servers moved in 2900 ms (done)
left      no_target          2
targets   b@h                5
          c@h                3
gap       p50                35 ms
          p90                50 ms
          p99                80 ms
          max                1250 ms
attempts  started            11
          failed             1
          servers retried    1
          in flight at most  12
          limit at the end   8
";
        assert_eq!(text, expected);
    }

    #[test]
    fn only_servers_that_were_there_to_be_moved_count_as_left() {
        assert!(summary(&[(Reason::Gone, 2)], false).is_complete());
        assert!(!summary(&[(Reason::Gone, 1), (Reason::Deadline, 1)], false).is_complete());
    }

    #[test]
    fn a_dry_run_does_not_say_that_anything_moved() {
        let text = summary(&[], true).to_string();
        assert!(text.starts_with("MyApp.Durable on a@h, dry run: 8 of 10 servers would move\n"), "{text}");
        assert!(!text.contains("attempts"), "{text}");
    }
}
