//! `integration/bench killed`, which builds both sides and sets the code path.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use handoff_demo::Error;
use handoff_demo::interrupt::Interrupt;
use handoff_demo::killed::args::Args;
use handoff_demo::killed::run::run;
use handoff_demo::places::Temporary;
use handoff_demo::progress::Progress;
use handoff_demo::report::write;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(reason) = args.refused() {
        Args::command().error(ErrorKind::ValueValidation, reason).exit();
    }
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(Error::exit_status(error.downcast_ref()))
        }
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let interrupt = Interrupt::listen()?;
    let places = Temporary::new("handoff-bench-")?;
    let report = match run(args, places.places(), &interrupt, &Progress::to_stderr()) {
        Ok(report) => report,
        Err(error) => return Err(places.explained(error).into()),
    };
    // Files first: a closed pipe must not cost what took minutes.
    if let Some(path) = &args.json {
        write(path, &report.to_json())?;
    }
    write!(io::stdout(), "\n{}", report.table())?;
    match report.broken() {
        broken if broken.is_empty() => Ok(()),
        broken => bail!("{}", broken.join("; ")),
    }
}
