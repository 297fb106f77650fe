//! `integration/bench drain`, `killed` and `leftovers`, which build both sides and set the code path.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use handoff_demo::bench::Bench;
use handoff_demo::error::exit;
use handoff_demo::interrupt::Interrupt;
use handoff_demo::paths::TempDir;
use handoff_demo::progress::Progress;
use handoff_demo::report::write;

fn main() -> ExitCode {
    exit(measure(&Bench::from_command_line()).map(|()| ExitCode::SUCCESS))
}

fn measure(bench: &Bench) -> anyhow::Result<()> {
    let interrupt = Interrupt::listen()?;
    let paths = TempDir::new("handoff-bench-")?;
    let shown = match bench.run(paths.paths(), &interrupt, &Progress::to_stderr()) {
        Ok(shown) => shown,
        Err(error) => return Err(paths.explained(error).into()),
    };
    // Files are written first: a closed pipe must not lose the results of minutes.
    if let Some(path) = bench.json() {
        write(path, &shown.json)?;
    }
    write!(io::stdout(), "\n{}", shown.table)?;
    if shown.broken.is_empty() { Ok(()) } else { bail!("{}", shown.broken.join("; ")) }
}
