//! Runs of faults; started by `integration/faults`, which builds both sides and sets the code path.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use handoff_demo::error::exit;
use handoff_demo::faults::Fault;
use handoff_demo::faults::args::Args;
use handoff_demo::faults::page::page;
use handoff_demo::faults::run::Run;
use handoff_demo::faults::table::{Shown, closing};
use handoff_demo::interrupt::Interrupt;
use handoff_demo::paths::TempDir;
use handoff_demo::progress::Progress;
use handoff_demo::random::seed;
use handoff_demo::releases::Releases;
use handoff_demo::report::write;

fn main() -> ExitCode {
    exit(run_all(&Args::parse()).map(|passed| ExitCode::from(u8::from(!passed))))
}

fn run_all(args: &Args) -> anyhow::Result<bool> {
    let faults = args.faults();
    let mut out = io::stdout().lock();
    if args.list {
        for fault in faults {
            writeln!(out, "{:30} {}", fault.name, fault.done)?;
        }
        return Ok(true);
    }
    // The files are read before the run: a file that cannot be read must not lose the results of minutes.
    let real = earlier(&args.real)?;
    if let (Some(path), false) = (&args.write_docs, args.stand_in.is_empty()) {
        write(path, &page(&faults, &earlier(&args.stand_in)?, &real))?;
        return Ok(true);
    }
    let first_seed = args.seed.map_or_else(seed, Ok)?;
    writeln!(out, "seed {first_seed}")?;
    let mut shown = Vec::new();
    let ended = each(args, &faults, first_seed, &mut shown);
    // Files are written first: a closed pipe must not lose the results of minutes. Nor must an interrupt.
    if let (Some(path), false) = (&args.json, shown.is_empty()) {
        write(path, &serde_json::to_string_pretty(&shown)?)?;
    }
    if let (Some(path), true) = (&args.write_docs, ended.is_ok()) {
        write(path, &page(&faults, &shown, &real))?;
    }
    write!(out, "{}", closing(&faults, &shown))?;
    for failed in shown.iter().filter(|run| !run.passed()) {
        writeln!(out, "{}, seed {}: {}", failed.fault, failed.seed, failed.line())?;
    }
    ended?;
    Ok(shown.iter().all(Shown::passed))
}

/// Runs each fault, and adds the results to `shown`.
fn each(args: &Args, faults: &[&Fault], first_seed: u64, shown: &mut Vec<Shown>) -> anyhow::Result<()> {
    let interrupt = Interrupt::listen()?;
    let progress = Progress::to_stderr();
    for fault in faults {
        for n in 0..args.times {
            let line = progress.line(format!("{} {}", fault.name, n + 1));
            let outcome = one(args, fault, first_seed.wrapping_add(n.into()), &interrupt, &line)?;
            line.done(&outcome.line());
            shown.push(outcome);
        }
    }
    Ok(())
}

/// The results of earlier runs.
fn earlier(paths: &[PathBuf]) -> anyhow::Result<Vec<Shown>> {
    let mut shown: Vec<Shown> = Vec::new();
    for path in paths {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(name)?;
        shown.append(&mut serde_json::from_str(&text).with_context(name)?);
    }
    Ok(shown)
}

/// One run. If it fails, its logs are kept. An interrupt ends all runs.
fn one(
    args: &Args,
    fault: &Fault,
    seed: u64,
    interrupt: &Interrupt,
    line: &handoff_demo::progress::ModeProgress,
) -> anyhow::Result<Shown> {
    let paths = TempDir::new("handoff-faults-")?;
    let run = Run {
        client: args.client,
        releases: Releases::new(&args.beams),
        seed,
        paths: paths.paths(),
        interrupt,
        progress: line,
    };
    let mut shown = match run.run(fault) {
        Ok(found) => Shown::new(fault, seed, found),
        Err(error) if error.is_from_before_the_nodes() => return Err(error.into()),
        Err(error) => Shown::failed(fault, seed, error.in_full()),
    };
    if !shown.passed() {
        shown.broken.push(paths.keep_logs());
    }
    Ok(shown)
}
