//! A small report for the tests of everything that renders one.

use std::collections::BTreeMap;

use clap::Parser as _;

use crate::args::Args;
use crate::cpu::Cpu;
use crate::quantiles::Quantiles;
use crate::report::{DrainReport, GapPoint, HostVersion, Load, ModeReport, NodeReport, Report, ShareLine, Versions};
use crate::settings::Settings;
use crate::store::Store;
use crate::variant::Mode;

/// All three modes of a rolling deploy of one node.
pub fn report() -> Report {
    let store = Store::Simulated { latency_ms: 10, slots: None, error_rate: 0.0 };
    Report {
        versions: Versions {
            durable_server: HostVersion { version: "0.1.5".into(), kind: "stand-in".into() },
            elixir: "1.14.0".into(),
            otp: "25".into(),
        },
        settings: Settings {
            nodes: 2,
            servers: 200,
            modes: [Mode::Graceful, Mode::Naive, Mode::Handoff].map(Into::into).to_vec(),
            ..Args::parse_from(["integration/demo"]).settings_on(store)
        },
        modes: vec![
            (
                Mode::Graceful.into(),
                mode(44_300.0, 0, &["2 servers were not back 300 s after the last node was gone: server 1, server 2"]),
            ),
            (Mode::Naive.into(), mode(46.6, 100, &[])),
            (Mode::Handoff.into(), mode(44.3, 100, &[])),
        ],
    }
}

fn mode(p50: f64, moved: usize, notes: &[&str]) -> ModeReport {
    let gap_ms =
        Quantiles { count: 100, p50: Some(p50), p90: Some(p50 * 1.1), p99: Some(p50 * 1.2), max: Some(p50 * 1.3) };
    let counts =
        |pairs: &[(&str, usize)]| pairs.iter().map(|&(name, n)| (name.to_owned(), n)).collect::<BTreeMap<_, _>>();
    let drain = DrainReport {
        node: "old1".into(),
        total: 100,
        moved,
        left: 100 - moved,
        gap_ms: gap_ms.clone(),
        drain_ms: 310.0,
        shutdown_ms: 900.0,
        targets: counts(&[("new1", 100), ("old2", 0)]),
    };
    ModeReport {
        total: 100,
        moved,
        left: 100 - moved,
        gap_ms: gap_ms.clone(),
        drain_ms: 310.0,
        recovery_ms: (notes.is_empty()).then_some(p50 * 1.4),
        targets: drain.targets.clone(),
        final_share: counts(&[("new1", 100), ("old2", 100)]),
        calls: 10_000,
        failed_calls: 29,
        failed_by: BTreeMap::from([("not_found".into(), 20), ("noproc".into(), 9)]),
        moves_per_server: 0.5,
        decided_by: BTreeMap::from([("embedded".into(), 1)]),
        call_ms_draining: gap_ms.clone(),
        call_ms_otherwise: Quantiles { count: 9_000, p50: Some(0.3), p90: Some(0.5), p99: Some(0.9), max: Some(4.0) },
        cpu_ms: Cpu { sources: 120.0, targets: 60.0, clients: 20.0 },
        store_ops: Some(BTreeMap::from([("get".into(), 100), ("put".into(), 300), ("in_flight".into(), 0)])),
        store_load: Some(Load { max: 51, mean: 24.5 }),
        nodes: [("old1", 100), ("new1", 100), ("old2", 100)]
            .map(|(node, started)| NodeReport { node: node.into(), elixir: "1.14.0".into(), otp: "25".into(), started })
            .to_vec(),
        drains: vec![drain],
        notes: notes.iter().map(|&note| note.to_owned()).collect(),
        gaps: (0..100u32)
            .map(|n| GapPoint { at_ms: f64::from(n) * 3.0, gap_ms: p50 * (0.9 + f64::from(n % 10) / 50.0) })
            .collect(),
        shares: [("old1", vec![(-500.0, 100), (300.0, 0)]), ("new1", vec![(0.0, 0), (300.0, 100)])]
            .map(|(node, steps)| ShareLine { node: node.into(), steps })
            .to_vec(),
        ..ModeReport::default()
    }
}
