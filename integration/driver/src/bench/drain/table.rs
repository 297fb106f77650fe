//! The table and the JSON.

use serde::Serialize;

use super::figures::{OnStore, Row};
use crate::durations::rounded;
use crate::report::Versions;
use crate::settings::CallKind;
use crate::tables;

/// All measurements, in the form of the JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    pub bench: &'static str,
    /// The versions.
    #[serde(flatten)]
    pub versions: Versions,
    /// Servers of each drain.
    pub servers: u32,
    /// The nodes to move them to.
    pub targets: u32,
    /// Whether the figures are those of a second drain in the same cluster.
    pub second: bool,
    /// What the clients' calls do.
    pub calls: CallKind,
    /// Other processes that only compute meanwhile.
    pub busy: u32,
    /// The number of rounds.
    pub rounds: u32,
    /// The time limit for servers to be back, except after a graceful shutdown.
    pub back_within_s: u32,
    pub stores: Vec<OnStore>,
}

const COLUMNS: [&str; 17] = [
    "store",
    "moved by",
    "gap p50",
    "p99",
    "max",
    "p99 to best",
    "worst",
    "drain",
    "to best",
    "worst",
    "servers/s",
    "at the store",
    "requests a move",
    "went to",
    "not back",
    "CPU s/1000",
    "to best",
];

impl Report {
    /// The table as text.
    pub fn table(&self) -> String {
        let mut table = tables::table(COLUMNS);
        for of in &self.stores {
            for (at, row) in of.rows.iter().enumerate() {
                let store = if at == 0 { of.store.described() } else { "" };
                table.add_row(tables::row([store, &row.name], values(row)));
            }
        }
        let Versions { elixir, otp, .. } = &self.versions;
        let (servers, rounds) = (self.servers, self.rounds);
        let to = if self.targets == 1 { "one node".to_owned() } else { format!("{} nodes", self.targets) };
        let which = if self.second { ", the second drain in the same cluster" } else { "" };
        let calls = match self.calls {
            CallKind::Change => "calls change the states",
            CallKind::Read => "calls only read",
        };
        let beside = if self.busy > 0 { format!(", beside {} busy loops", self.busy) } else { String::new() };
        format!(
            "Draining {servers} servers to {to}{which}{beside}, {calls}, median of {rounds}, Elixir {elixir}, OTP {otp}\n\
             {table}\n\
             to best: by the figure of the best task stream on that store; worst: of all rounds, by the same.\n\
             Requests a move: at the store from SIGTERM to the end of the run, with heartbeats and sweeps.\n\
             CPU s/1000: seconds of processors for 1,000 moves, of sources + targets + clients, with the clients'\n\
             calls meanwhile: a drain that takes longer has more. Not back: stopped, and running nowhere {} s after\n\
             the drain; in no gap, so that the streams look better than they are.\n{}",
            self.back_within_s,
            self.by_row(|row| &row.notes).map(|note| note + "\n").collect::<String>()
        )
    }

    /// The violated guarantees, by store and contender.
    pub fn broken(&self) -> Vec<String> {
        self.by_row(|row| &row.broken).collect()
    }

    /// Texts of every row, with store and contender.
    fn by_row(&self, texts: fn(&Row) -> &Vec<String>) -> impl Iterator<Item = String> {
        let rows = self.stores.iter().flat_map(|of| of.rows.iter().map(move |row| (of, row)));
        rows.flat_map(move |(of, row)| {
            texts(row).iter().map(move |text| format!("{}, {}: {text}", of.store.described(), row.name))
        })
    }
}

fn values(row: &Row) -> [String; 15] {
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let seconds = |ms: f64| format!("{:.2}", ms / 1_000.0);
    let shares: Vec<String> = row.targets.values().map(ToString::to_string).collect();
    [
        rounded(Some(row.gap_p50_ms)),
        rounded(Some(row.gap_p99_ms)),
        rounded(Some(row.gap_max_ms)),
        ratio(row.p99_ratio),
        ratio(row.p99_worst_ratio),
        rounded(Some(row.drain_ms)),
        ratio(row.drain_ratio),
        ratio(row.drain_worst_ratio),
        format!("{:.0}", row.per_second),
        format!("{:.0}, max {:.0}", row.at_store_mean, row.at_store_max),
        format!("{:.2}", row.requests_per_move),
        shares.join(" / "),
        row.not_back.to_string(),
        [row.cpu_per_1000.sources, row.cpu_per_1000.targets, row.cpu_per_1000.clients].map(seconds).join(" + "),
        ratio(row.cpu_ratio),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::drain::contender::Contender;
    use crate::bench::drain::figures::on_store;
    use crate::bench::drain::shape::Shape;
    use crate::render::fixture;
    use crate::report::ModeReport;
    use crate::variant::Executor;

    fn report() -> Report {
        let demo = fixture::report();
        let mode = |at: usize| vec![demo.modes[at].1.clone()];
        let by_node = ModeReport { decided_by: BTreeMap::from([("node".into(), 1)]), ..demo.modes[2].1.clone() };
        let measured = [
            (Contender::Stream(8), mode(1)),
            (Contender::Handoff(Executor::Embedded), mode(2)),
            (Contender::Handoff(Executor::Node), vec![by_node]),
        ];
        let stores = vec![on_store(Shape::Slots, &measured)];
        Report {
            bench: "drain",
            versions: demo.versions.clone(),
            servers: 100,
            targets: 1,
            second: false,
            calls: CallKind::Read,
            busy: 2,
            rounds: 1,
            back_within_s: 5,
            stores,
        }
    }

    #[test]
    fn the_table_has_every_contender_of_every_store_with_ratios() {
        let table = report().table();
        for expected in [
            "8 slots x 10 ms",
            "task stream, 8 at once",
            "durable_handoff, Rust node",
            "0.95",
            "100 / 0",
            "100 servers to one node, beside 2 busy loops, calls only read",
            "4.00",
            "1.20 + 0.60 + 0.20",
        ] {
            assert!(table.contains(expected), "no {expected:?} in:\n{table}");
        }
    }

    #[test]
    fn the_json_has_the_name_of_the_measurement_and_the_versions() {
        let json: serde_json::Value = serde_json::from_str(&crate::bench::json(&report())).unwrap();
        assert_eq!((json["bench"].as_str(), json["otp"].as_str()), (Some("drain"), Some("25")));
        assert_eq!(json["stores"][0]["store"], "slots");
        assert_eq!(json["stores"][0]["rows"][0]["p99_ratio"], 1.0);
    }

    #[test]
    fn a_violation_is_reported_with_store_and_contender() {
        let mut report = report();
        assert!(report.broken().is_empty());
        report.stores[0].rows[1].broken.push("3 states differ from the start".into());
        assert_eq!(report.broken(), ["8 slots x 10 ms, durable_handoff: 3 states differ from the start"]);
        report.stores[0].rows[1].notes.push("old1 was killed".into());
        assert!(report.table().ends_with("\n8 slots x 10 ms, durable_handoff: old1 was killed\n"));
    }
}
