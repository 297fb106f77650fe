//! The plan of a drain, as a table and as JSON. The JSON has the keys and units of the plan on the wire,
//! except that `moves` is called `moved`, as in a report.

use std::collections::BTreeMap;
use std::fmt;

use handoff_core::Reason;
use handoff_wire::PlanSummary;
use serde::Serialize;

use super::Subject;
use super::report::{Rows, is_complete};
use crate::commands::columns::{columns, duration_us};

#[derive(Debug, Serialize)]
pub(super) struct Plan {
    node: String,
    supervisor: String,
    dry_run: bool,
    total: u64,
    moved: u64,
    left: BTreeMap<Reason, u64>,
    targets: BTreeMap<String, u64>,
    timeout_ms: Option<u64>,
    estimate_us: Option<u64>,
    out_of_reach: Vec<String>,
}

impl Plan {
    pub(super) fn new(subject: Subject, plan: PlanSummary) -> Self {
        Plan {
            node: subject.node,
            supervisor: subject.supervisor,
            dry_run: true,
            total: plan.total,
            moved: plan.moves,
            left: plan.left,
            targets: plan.targets.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
            timeout_ms: plan.timeout_ms,
            estimate_us: plan.estimate_us,
            out_of_reach: plan.out_of_reach,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        is_complete(&self.left)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { node, supervisor, total, moved, .. } = self;
        writeln!(f, "{supervisor} on {node}, dry run: {moved} of {total} servers would move")?;
        let mut rows = Rows::default();
        rows.group("left", self.left.iter().map(|(reason, count)| (reason.name(), count.to_string())));
        rows.group("targets", self.targets.iter().map(|(name, count)| (&**name, count.to_string())));
        let estimate = self.estimate_us.map_or_else(|| "unknown: the store did not answer".to_owned(), duration_us);
        let limit = self.timeout_ms.map(|ms| ("limit", duration_us(ms.saturating_mul(1_000))));
        // A drain without servers to move takes no time.
        rows.group("time", (*moved > 0).then_some(("estimate", estimate)).into_iter().chain(limit));
        rows.group("not connected", self.out_of_reach.iter().map(|name| (&**name, String::new())));
        f.write_str(&columns(&rows.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_reports_no_server_as_moved() {
        let plan = PlanSummary {
            total: 10,
            moves: 8,
            left: BTreeMap::from([(Reason::NoTarget, 2)]),
            targets: BTreeMap::from([("b@h".into(), 8)]),
            timeout_ms: Some(30_000),
            estimate_us: Some(2_900_000),
            out_of_reach: vec!["c@h".into()],
            balance: None,
        };
        let plan = Plan::new(Subject::for_tests(), plan);
        let expected = "\
MyApp.Durable on a@h, dry run: 8 of 10 servers would move
left           no_target  2
targets        b@h        8
time           estimate   2900 ms
               limit      30.0 s
not connected  c@h
";
        assert_eq!(plan.to_string(), expected);
        assert!(!plan.is_complete());
    }
}
