//! A drain's report, as a table and as JSON. JSON has the keys and units of the wire's report.

use std::collections::BTreeMap;
use std::fmt;

use handoff_core::quantiles::Summary as Quantiles;
use handoff_core::{AtATime, Reason, Report};
use serde::Serialize;

use super::Subject;
use crate::commands::columns::{columns, duration_us};

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    node: String,
    supervisor: String,
    /// The JSON key that distinguishes a plan (`true`) from a drain.
    dry_run: bool,
    ended: Option<&'static str>,
    total: u64,
    moved: u64,
    left: BTreeMap<Reason, u64>,
    retried: u64,
    attempts: u64,
    failures: u64,
    duration_us: u64,
    gap_us: Quantiles,
    concurrency: AtATime,
    targets: BTreeMap<String, u64>,
}

impl Summary {
    pub(super) fn new(subject: Subject, report: Report) -> Self {
        Summary {
            node: subject.node,
            supervisor: subject.supervisor,
            dry_run: false,
            ended: report.ended.map(handoff_core::Ended::name),
            total: report.total,
            moved: report.moved,
            left: report.left,
            retried: report.retried,
            attempts: report.attempts,
            failures: report.failures,
            duration_us: report.duration.0,
            gap_us: report.gap,
            concurrency: report.concurrency,
            targets: report.targets.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        is_complete(&self.left)
    }
}

/// Whether all servers that were to move did.
pub(super) fn is_complete(left: &BTreeMap<Reason, u64>) -> bool {
    left.iter().all(|(reason, count)| *count == 0 || !reason.was_to_move())
}

/// Rows in groups. The first row of each group shows the group's name.
#[derive(Default)]
pub(super) struct Rows(pub(super) Vec<[String; 3]>);

impl Rows {
    pub(super) fn group<'a>(&mut self, mut group: &str, rows: impl IntoIterator<Item = (&'a str, String)>) {
        for (name, value) in rows {
            self.0.push([std::mem::take(&mut group).to_owned(), name.to_owned(), value]);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { node, supervisor, total, moved, .. } = self;
        let took = duration_us(self.duration_us);
        let ended = self.ended.unwrap_or("for a reason that this release does not know");
        writeln!(f, "{supervisor} on {node}: {moved} of {total} servers moved in {took} ({ended})")?;
        let mut rows = Rows::default();
        let left = self.left.iter().filter(|(_, count)| **count > 0);
        rows.group("left", left.map(|(reason, count)| (reason.name(), count.to_string())));
        rows.group("targets", self.targets.iter().map(|(name, count)| (&**name, count.to_string())));
        if self.gap_us.count > 0 {
            let Quantiles { p50, p90, p99, max, .. } = self.gap_us;
            let quantiles = [("p50", p50), ("p90", p90), ("p99", p99), ("max", max)];
            rows.group("gap", quantiles.map(|(name, us)| (name, duration_us(us))));
        }
        let attempts = [
            ("started", self.attempts),
            ("failed", self.failures),
            ("servers retried", self.retried),
            ("in flight at most", self.concurrency.highest.into()),
            ("limit at the end", self.concurrency.last.into()),
        ];
        rows.group("attempts", attempts.map(|(name, value)| (name, value.to_string())));
        f.write_str(&columns(&rows.0))
    }
}

#[cfg(test)]
mod tests {
    use handoff_core::Ended;
    use handoff_core::time::Micros;

    use super::*;

    fn summary(left: &[(Reason, u64)]) -> Summary {
        let report = Report {
            total: 10,
            moved: 8,
            left: left.iter().copied().collect(),
            retried: 1,
            gap: Quantiles { count: 8, p50: 35_000, p90: 50_000, p99: 80_000, max: 1_250_000 },
            duration: Micros(2_900_000),
            targets: BTreeMap::from([("b@h".into(), 5), ("c@h".into(), 3)]),
            concurrency: AtATime { last: 8, highest: 12 },
            learnt: None,
            attempts: 11,
            failures: 1,
            ended: Some(Ended::Done),
            balance: None,
        };
        Summary::new(Subject::for_tests(), report)
    }

    #[test]
    fn the_table_lists_targets_and_the_reasons_of_servers_that_were_left() {
        let text = summary(&[(Reason::NoTarget, 2)]).to_string();
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
    fn servers_that_the_policy_keeps_or_that_ended_by_themselves_do_not_count_as_left() {
        assert!(summary(&[(Reason::Gone, 2), (Reason::Excluded, 5)]).is_complete());
        assert!(!summary(&[(Reason::Gone, 1), (Reason::Deadline, 1)]).is_complete());
    }
}
