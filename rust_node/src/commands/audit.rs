//! `audit`: what a store says about its servers, without a cluster.
//!
//! Guarantee: nothing is written. The store is opened for reading only, and refuses writes itself.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use state_store::{Settings, Store};
use store_audit::{Progress, audit, table};

/// How often a listing that takes long says so where there is no terminal: in a log or a job's output.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What to audit.
#[derive(Debug, Args)]
pub struct AuditFlags {
    /// s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or file:///DIR; credentials come from the environment
    #[arg(long, env = "DURABLE_HANDOFF_STORE")]
    pub store: String,
    /// The supervisor's prefix
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Audits and prints. False when something is wrong in the store.
///
/// # Errors
/// When the store cannot be listed or the result not printed.
pub async fn run(flags: AuditFlags) -> anyhow::Result<bool> {
    let settings = Settings { read_only: true, ..Settings::default() };
    let store = Store::open(&flags.store, &settings).context("opening the store")?;
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut teller = Teller::new(std::io::stderr(), std::io::stderr().is_terminal(), Instant::now());
    let report = audit(&store, &flags.prefix, now_ms, |far| teller.tell(far, Instant::now())).await;
    teller.end();
    let report = report.with_context(|| format!("auditing {}", store.url()))?;
    let mut out = std::io::stdout().lock();
    if flags.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let mut text = String::new();
        table::write(&report, &mut text)?;
        out.write_all(text.as_bytes())?;
    }
    Ok(report.is_clean())
}

/// Says how far an audit is: on a terminal in one line that is written over, elsewhere in a line now and then.
struct Teller<W: Write> {
    out: W,
    terminal: bool,
    next: Instant,
    started_line: bool,
}

impl<W: Write> Teller<W> {
    fn new(out: W, terminal: bool, now: Instant) -> Self {
        Self { out, terminal, next: now + SAY_EVERY, started_line: false }
    }

    fn tell(&mut self, far: Progress, now: Instant) {
        // Progress that cannot be shown is no reason to stop.
        let _closed = if self.terminal {
            self.started_line = true;
            write!(self.out, "\r{} objects read", far.read).and_then(|()| self.out.flush())
        } else if now >= self.next {
            self.next = now + SAY_EVERY;
            writeln!(self.out, "{} objects read", far.read)
        } else {
            Ok(())
        };
    }

    /// Leaves a terminal as if nothing had been said.
    fn end(&mut self) {
        if self.started_line {
            let _closed = write!(self.out, "\r\u{1b}[K").and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(terminal: bool, after_s: &[u64]) -> String {
        let started = Instant::now();
        let mut teller = Teller::new(Vec::new(), terminal, started);
        for (page, seconds) in (1..).zip(after_s) {
            let far = Progress { listed: page * 1_000, read: page * 1_000, complete: false };
            teller.tell(far, started + Duration::from_secs(*seconds));
        }
        teller.end();
        String::from_utf8(teller.out).unwrap()
    }

    #[test]
    fn a_terminal_has_one_line_that_is_gone_at_the_end() {
        assert_eq!(told(true, &[1, 2]), "\r1000 objects read\r2000 objects read\r\u{1b}[K");
        assert_eq!(told(true, &[]), "");
    }

    #[test]
    fn a_log_has_a_line_now_and_then_and_none_for_what_is_over_at_once() {
        assert_eq!(told(false, &[1, 2]), "");
        assert_eq!(told(false, &[9, 11, 12, 25]), "2000 objects read\n4000 objects read\n");
    }
}
