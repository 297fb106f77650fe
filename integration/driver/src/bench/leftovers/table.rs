//! The table and the JSON.

use serde::Serialize;

use super::args::Args;
use crate::durations::{rounded, tenths};
use crate::quantiles::{Quantiles, millis};
use crate::report::Versions;
use crate::tables;

/// All measurements.
#[derive(Debug, Serialize)]
pub struct Report {
    pub bench: &'static str,
    /// The versions.
    #[serde(flatten)]
    pub versions: Versions,
    /// Servers of the node that was shut down.
    pub servers: u32,
    pub timeout_ms: u32,
    pub slots: u32,
    pub latency_ms: u32,
    #[serde(skip)]
    pub receivers: u32,
    pub kill_target: bool,
    pub kill_source: bool,
    pub fail_percent: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<Left>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<Left>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_p99: Option<f64>,
}

/// The servers that one drain left.
#[derive(Debug, Clone, Serialize)]
pub struct Left {
    pub left: usize,
    /// From a server's stop to its start elsewhere.
    pub gap_p50_ms: f64,
    pub gap_p99_ms: f64,
    pub gap_max_ms: f64,
    /// The time from the start of the drain to the next sweep of other nodes.
    pub next_sweep_ms: u64,
    /// The most requests that the store served at once.
    pub max_in_flight: u64,
    /// Servers without exactly one owner, or without the stored counter.
    pub wrong: usize,
}

impl Left {
    /// The figures of these gaps, in microseconds.
    pub fn new(gaps_us: Vec<u64>, next_sweep_ms: u64, max_in_flight: u64, wrong: usize) -> Self {
        let Quantiles { count, p50, p99, max, .. } = Quantiles::of_micros(gaps_us);
        let [gap_p50_ms, gap_p99_ms, gap_max_ms] = [p50, p99, max].map(|ms| ms.unwrap_or(0.0));
        Self { left: count, gap_p50_ms, gap_p99_ms, gap_max_ms, next_sweep_ms, max_in_flight, wrong }
    }
}

const COLUMNS: [&str; 7] = ["", "left", "gap p50", "gap p99", "gap max", "next sweep", "wrong"];

impl Report {
    pub fn new(args: &Args, versions: Versions, with: Option<Left>, without: Option<Left>) -> Self {
        let Args { servers, timeout_ms, slots, latency_ms, receivers, kill_target, kill_source, fail, .. } = *args;
        let ratio = |with: &Left, without: &Left| with.gap_p99_ms / without.gap_p99_ms.max(0.001);
        let ratio_p99 = with.as_ref().zip(without.as_ref()).map(|(with, without)| ratio(with, without));
        Self {
            bench: "leftovers",
            versions,
            servers,
            timeout_ms,
            slots,
            latency_ms,
            receivers,
            kill_target,
            kill_source,
            fail_percent: fail,
            with,
            without,
            ratio_p99,
        }
    }

    /// The table as text.
    pub fn table(&self) -> String {
        let mut table = tables::table(COLUMNS);
        for (name, side) in self.sides() {
            let gaps = [side.gap_p50_ms, side.gap_p99_ms, side.gap_max_ms].map(|ms| rounded(Some(ms)));
            let others = [tenths(millis(side.next_sweep_ms)), side.wrong.to_string()];
            table.add_row(tables::row([name], [side.left.to_string()].into_iter().chain(gaps).chain(others)));
        }
        let Self { servers, timeout_ms, slots, latency_ms, receivers, versions, .. } = self;
        let ratio = self.ratio_p99.map(|ratio| format!("ratio of p99: {ratio:.3}\n")).unwrap_or_default();
        let store = format!("store of {slots} slots x {latency_ms} ms{}", self.troubles());
        format!(
            "{servers} servers, drain of {timeout_ms} ms, {store}, {receivers} receivers; {versions}\n{table}\n{ratio}wrong: servers without \
             exactly one owner, or without what was stored\n"
        )
    }

    fn troubles(&self) -> String {
        let fail = (self.fail_percent > 0).then(|| format!(", {} % of its requests fail", self.fail_percent));
        let target = self.kill_target.then(|| ", a receiver killed meanwhile".to_owned());
        let source = self.kill_source.then(|| ", the source killed after its drain".to_owned());
        [fail, target, source].into_iter().flatten().collect()
    }

    fn sides(&self) -> impl Iterator<Item = (&'static str, &Left)> {
        let sides = [("start_leftovers", &self.with), ("without", &self.without)];
        sides.into_iter().filter_map(|(name, side)| Some((name, side.as_ref()?)))
    }

    /// The runs with a server that counts in `wrong`.
    pub fn broken(&self) -> Vec<String> {
        let wrong = self.sides().filter(|(_, side)| side.wrong > 0);
        wrong.map(|(name, side)| format!("{name}: {} servers are wrong", side.wrong)).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::render::fixture;

    #[test]
    fn wrong_servers_are_reported_and_gaps_compared() {
        let args = Args::parse_from(["integration/bench leftovers", "--fail", "5%", "--kill-target"]);
        let with = Left::new(vec![40_000, 20_000], 31_400, 8, 0);
        let without = Left { wrong: 3, ..Left::new(vec![32_000_000], 31_400, 8, 0) };
        let report = Report::new(&args, fixture::report().versions, Some(with), Some(without));
        assert_eq!(report.broken(), ["without: 3 servers are wrong"]);
        let table = report.table();
        for expected in ["20.0 ms", "40.0 ms", "32.0 s", "31.4 s", "0.001", "5 % of its requests", "a receiver killed"]
        {
            assert!(table.contains(expected), "no {expected:?} in {table}");
        }
    }
}
