//! The measurement: every contender on every store, in turn.

use std::process::Command;

use clap::Parser;

use super::args::Args;
use super::contender::Contender;
use super::figures::on_store;
use super::shape::Shape;
use super::table::Report;
use crate::args;
use crate::durations::rounded;
use crate::interrupt::Interrupt;
use crate::paths::Paths;
use crate::process::Process;
use crate::progress::Progress;
use crate::report::ModeReport;
use crate::run::run_mode;
use crate::settings::Settings;
use crate::{Error, Result};

/// Enough clients to measure calls, but too few to load a small machine.
const CLIENTS: u32 = 4;

/// How long servers may take to be back after the drain. A sweep finds servers that a task stream leaves
/// stopped and reserved after 40 s and more. The bench counts such servers and does not wait for them.
const BACK_WITHIN_S: u32 = 5;

pub fn run(args: &Args, paths: &Paths, interrupt: &Interrupt, progress: &Progress) -> Result<Report> {
    let (mut stores, mut versions) = (Vec::new(), None);
    let _busy = busy(args.busy, paths)?;
    for &shape in &args.stores {
        let mut measured: Vec<(Contender, Vec<ModeReport>)> =
            args.contenders(shape).into_iter().map(|contender| (contender, Vec::new())).collect();
        for round in 1..=args.rounds {
            for (contender, reports) in &mut measured {
                let line = progress.line(format!("{}, {}, {round}", shape.described(), contender.name()));
                let settings = settings(args, shape, *contender);
                let (report, on) = run_mode(contender.variant(), &settings, paths, interrupt, &line)?;
                line.done(&format!("gap p99 {}, drain {:.0} ms", rounded(report.gap_ms.p99), report.drain_ms));
                versions.get_or_insert(on);
                reports.push(report);
            }
        }
        stores.push(on_store(shape, &measured));
    }
    let versions = versions.ok_or_else(|| Error::protocol("nothing was measured"))?;
    Ok(Report {
        bench: "drain",
        versions,
        servers: args.servers,
        targets: args.targets,
        second: args.second,
        calls: args.calls,
        busy: args.busy,
        rounds: args.rounds,
        back_within_s: BACK_WITHIN_S,
        stores,
    })
}

/// Processes that only compute, until they are dropped or this process has ended.
fn busy(count: u32, paths: &Paths) -> Result<Vec<Process>> {
    let start = |number| {
        Process::spawn(computing(std::process::id()), &paths.logs.join(format!("busy-{number}.log")))
            .map_err(Error::io("starting a process that computes"))
    };
    (0..count).map(start).collect()
}

/// Computes for as long as a process lives. Looks for it several times a second, by a builtin of the shell.
fn computing(pid: u32) -> Command {
    let mut shell = Command::new("sh");
    let some = "n=0; while [ $n -lt 100000 ]; do n=$((n + 1)); done";
    shell.args(["-c", &format!("while kill -0 {pid} 2>/dev/null; do {some}; done")]);
    shell
}

/// The settings of `integration/demo --quick --scenario drain`, changed where the measurement requires it.
fn settings(args: &Args, shape: Shape, contender: Contender) -> Settings {
    let demo = args::Args::parse_from(["integration/demo", "--quick", "--scenario", "drain"]);
    let settings = demo.settings_on(shape.store());
    let recovery_bound_s = if contender == Contender::Graceful { settings.recovery_bound_s } else { BACK_WITHIN_S };
    // The first of two drains leaves as many servers as are measured on each of the other nodes.
    let stopping = 1 + u32::from(args.second);
    let first = if args.second { args.targets + 1 } else { 1 };
    Settings {
        nodes: stopping + args.targets,
        servers: args.servers.saturating_mul(first),
        clients: CLIENTS,
        modes: vec![contender.variant()],
        max_concurrency: contender.max_concurrency(args.max_concurrency),
        concurrency: args.concurrency,
        start_ms: shape.start_ms(),
        second_drain: args.second,
        call_kind: args.calls,
        recovery_bound_s,
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::wait_for;
    use crate::settings::{CallKind, Scenario};
    use crate::store::Store;
    use crate::variant::Executor;

    #[test]
    fn a_process_that_computes_ends_with_the_one_that_started_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        let starter = Process::spawn(sleep, &dir.path().join("starter.log")).unwrap();
        let mut computes = Process::spawn(computing(starter.id()), &dir.path().join("computes.log")).unwrap();
        wait_for("its work", || computes.cpu_ms());
        drop(starter);
        wait_for("its end", || computes.status().unwrap());
    }

    #[test]
    fn a_stream_has_its_own_number_and_the_shape_decides_the_store() {
        let args = Args::parse_from(["integration/bench drain", "--servers", "70", "--calls", "read"]);
        let stream = settings(&args, Shape::Slots, Contender::Stream(8));
        assert_eq!((stream.servers, stream.max_concurrency, stream.scenario), (70, 8, Scenario::Drain));
        assert_eq!(stream.call_kind, CallKind::Read);
        assert_eq!(stream.store, Store::Simulated { latency_ms: 10, slots: Some(8), error_rate: 0.0 });
        let slow = settings(&args, Shape::SlowStart, Contender::Graceful);
        assert_eq!((slow.nodes, slow.start_ms, slow.max_concurrency), (3, 100, 50));
        let args = Args { second: true, ..args };
        let ours = settings(&args, Shape::Slots, Contender::Handoff(Executor::Embedded));
        assert_eq!((ours.nodes, ours.servers, ours.second_drain), (4, 210, true));
        // The cluster of a stream has the same size, so its clients and registries have the same work.
        let stream = settings(&args, Shape::Slots, Contender::Stream(8));
        assert_eq!((stream.nodes, stream.servers, stream.second_drain), (4, 210, true));
        let ours = settings(&Args { targets: 1, ..args }, Shape::Slots, Contender::Handoff(Executor::Embedded));
        assert_eq!((ours.nodes, ours.servers), (3, 140));
        // Sweeps find the servers of a graceful shutdown, and the time until then is the measured figure.
        assert!(slow.recovery_bound_s > 60 && stream.recovery_bound_s < 40);
    }
}
