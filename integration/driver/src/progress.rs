//! Progress on the terminal: one line per mode. Without a terminal, one line per step.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::variant::Variant;

/// The interval of progress lines of a long step, without a terminal.
const REMIND_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Progress {
    lines: MultiProgress,
    on_terminal: bool,
}

#[derive(Debug)]
pub struct ModeProgress {
    name: String,
    line: ProgressBar,
    on_terminal: bool,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    step: String,
    calls: (u64, u64),
    last_printed: Instant,
}

impl Progress {
    pub fn to_stderr() -> Self {
        let on_terminal = io::stderr().is_terminal();
        Self { lines: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), on_terminal }
    }

    pub fn mode(&self, variant: Variant) -> ModeProgress {
        self.line(variant.name())
    }

    pub fn line(&self, name: String) -> ModeProgress {
        let line = self.lines.add(ProgressBar::new(0));
        line.set_style(style("{spinner:.cyan} {prefix:9.bold} {elapsed:>4} {wide_msg}"));
        line.set_prefix(name.clone());
        if self.on_terminal {
            line.enable_steady_tick(Duration::from_millis(120));
        }
        let state = State { step: String::new(), calls: (0, 0), last_printed: Instant::now() };
        ModeProgress { name, line, on_terminal: self.on_terminal, state: RefCell::new(state) }
    }
}

impl ModeProgress {
    pub fn step(&self, step: &str) {
        self.state.borrow_mut().step = step.to_owned();
        self.line.set_style(style("{spinner:.cyan} {prefix:9.bold} {elapsed:>4} {wide_msg}"));
        self.show();
        self.print(step);
    }

    /// The progress of the step, in servers.
    pub fn amount(&self, done: u32, total: u32) {
        if self.line.length() != Some(total.into()) || self.line.position() == 0 {
            self.line.set_style(style(
                "{spinner:.cyan} {prefix:9.bold} {elapsed:>4} {bar:24.cyan/dim} {pos}/{len} servers  {wide_msg}",
            ));
        }
        self.line.set_length(total.into());
        self.line.set_position(done.into());
        if self.state.borrow().last_printed.elapsed() >= REMIND_EVERY {
            let step = self.state.borrow().step.clone();
            self.print(&format!("{step}: {done} of {total} servers"));
        }
    }

    /// The calls of the clients so far: answered, failed.
    pub fn calls(&self, calls: (u64, u64)) {
        self.state.borrow_mut().calls = calls;
        self.show();
    }

    pub fn done(&self, result: &str) {
        self.line.set_style(style("{prefix:.green} {wide_msg}"));
        self.line.set_prefix("✓");
        self.line.finish_with_message(format!("{:9} {result}", self.name));
        self.print(result);
    }

    fn show(&self) {
        let state = self.state.borrow();
        let message = match state.calls {
            (0, 0) => state.step.clone(),
            (ok, failed) => format!("{} ({} calls, {failed} failed)", state.step, ok + failed),
        };
        self.line.set_message(message);
    }

    fn print(&self, text: &str) {
        self.state.borrow_mut().last_printed = Instant::now();
        if !self.on_terminal {
            // A closed standard error stream does not end a run.
            let _ = writeln!(io::stderr(), "{:9} {text}", self.name);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a template of this file").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}
