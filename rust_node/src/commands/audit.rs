//! `audit`: reads the state of all servers from a store, without a cluster.
//!
//! Guarantee: nothing is written. The store is opened for reading only, and refuses writes itself.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use state_store::{Settings, Store};
use store_audit::{Progress, audit};

use super::agent::show;
use super::exit::Exit;

/// The interval of progress lines when standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What to audit.
#[derive(Debug, Args)]
pub struct AuditFlags {
    /// s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or file:///DIR; credentials come from the
    /// environment, for S3 also from a profile (AWS_PROFILE) or the role of the machine
    #[arg(long, env = "DURABLE_HANDOFF_STORE")]
    pub store: String,
    /// The supervisor's prefix
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Audits a store and prints the result. Fails when the store cannot be listed.
pub async fn run(flags: AuditFlags) -> anyhow::Result<Exit> {
    let settings = Settings { read_only: true, ..Settings::default() };
    let store = Store::open(&flags.store, &settings).context("opening the store")?;
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut counter = Counter::new(ProgressDrawTarget::stderr(), std::io::stderr(), Instant::now());
    let report = audit(&store, &flags.prefix, now_ms, |progress| counter.show(progress, Instant::now())).await;
    counter.bar.finish_and_clear();
    let report = report.with_context(|| format!("auditing {}", store.url()))?;
    show(flags.json, &report)?;
    Ok(if report.is_clean() { Exit::Done } else { Exit::Findings })
}

/// Shows the progress of an audit: a counter on a terminal, otherwise a line every ten seconds.
struct Counter<W: Write> {
    bar: ProgressBar,
    log: W,
    began: Instant,
    next_line: Instant,
}

impl<W: Write> Counter<W> {
    fn new(target: ProgressDrawTarget, log: W, now: Instant) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is a constant. If it were invalid, the default one would be used.
        if let Ok(style) = ProgressStyle::with_template("{pos} objects read, {per_sec}, {elapsed}") {
            bar.set_style(style);
        }
        Self { bar, log, began: now, next_line: now + LINE_EVERY }
    }

    fn show(&mut self, progress: Progress, now: Instant) {
        self.bar.set_position(progress.read);
        if self.bar.is_hidden() && now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            // A progress line that cannot be written does not end the audit.
            let seconds = (now - self.began).as_secs();
            let _closed = writeln!(self.log, "{} objects read in {seconds} s", progress.read);
        }
    }
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    fn read(objects: u64) -> Progress {
        Progress { listed: objects, read: objects, complete: false }
    }

    #[test]
    fn a_terminal_shows_the_latest_count_and_the_end_clears_it() {
        let terminal = InMemoryTerm::new(4, 80);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut counter = Counter::new(target, Vec::new(), Instant::now());
        counter.show(read(1_000), Instant::now());
        counter.show(read(2_000), Instant::now());
        counter.bar.force_draw();
        assert!(terminal.contents().starts_with("2000 objects read, "), "{}", terminal.contents());
        counter.bar.finish_and_clear();
        assert_eq!((terminal.contents(), counter.log), (String::new(), Vec::new()));
    }

    #[test]
    fn a_log_gets_a_line_every_ten_seconds_and_a_shorter_audit_logs_none() {
        let logged = |seconds: &[u64]| {
            let started = Instant::now();
            let mut counter = Counter::new(ProgressDrawTarget::hidden(), Vec::new(), started);
            for (page, seconds) in (1..).zip(seconds) {
                counter.show(read(page * 1_000), started + Duration::from_secs(*seconds));
            }
            String::from_utf8(counter.log).unwrap()
        };
        assert_eq!(logged(&[1, 2]), "");
        assert_eq!(logged(&[9, 11, 12, 25]), "2000 objects read in 11 s\n4000 objects read in 25 s\n");
    }
}
