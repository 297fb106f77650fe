//! The demo's command line; started by `integration/demo`, which builds both sides and sets the code path.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use handoff_demo::args::Args;
use handoff_demo::durations::rounded;
use handoff_demo::error::exit;
use handoff_demo::interrupt::Interrupt;
use handoff_demo::paths::{Paths, TempDir};
use handoff_demo::progress::Progress;
use handoff_demo::render::{page, plot, table};
use handoff_demo::report::{Report, write};
use handoff_demo::run::run_mode;
use handoff_demo::settings::Settings;
use handoff_demo::{Error, report};

fn main() -> ExitCode {
    let (args, settings) = Args::from_command_line();
    exit(run(&args, settings).map(|()| ExitCode::SUCCESS))
}

fn run(args: &Args, settings: Settings) -> anyhow::Result<()> {
    let interrupt = Interrupt::listen()?;
    let paths = TempDir::new("handoff-demo-")?;
    let report = match measure(settings, paths.paths(), &interrupt) {
        Ok(report) => report,
        Err(error) => return Err(paths.explained(error).into()),
    };

    // Files are written first: a closed pipe must not lose the results of minutes.
    if let Some(path) = &args.json {
        write(path, &report.to_json())?;
    }
    if let Some(path) = &args.html {
        write(path, &page::page(&report)?)?;
    }
    if let Some(path) = &args.svg {
        // Without a gap the plot is empty. It replaces a file of an earlier run, which would look like one of
        // this run.
        write(path, &plot::picture(&report)?.unwrap_or_default())?;
    }
    let mut out = io::stdout().lock();
    write!(out, "\n{}", table::closing(&report)).context("writing the table")?;
    for path in [&args.html, &args.json, &args.svg].into_iter().flatten() {
        writeln!(out, "Written: {}", path.display()).context("writing the table")?;
    }
    match report.broken() {
        broken if args.check && !broken.is_empty() => bail!("{}", broken.join("; ")),
        _ => Ok(()),
    }
}

fn measure(settings: Settings, paths: &Paths, interrupt: &Interrupt) -> Result<Report, Error> {
    let progress = Progress::to_stderr();
    let mut modes = Vec::new();
    let mut measured_on: Option<report::Versions> = None;
    for &mode in &settings.modes {
        let line = progress.mode(mode);
        let (figures, versions) = run_mode(mode, &settings, paths, interrupt, &line)?;
        line.done(&format!("{} of {} moved, gap p50 {}", figures.moved, figures.total, rounded(figures.gap_ms.p50)));
        modes.push((mode, figures));
        measured_on.get_or_insert(versions);
    }
    let versions = measured_on.ok_or_else(|| Error::protocol("no mode ran"))?;
    Ok(Report { versions, settings, modes })
}
