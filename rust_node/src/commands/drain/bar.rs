//! A drain's progress: on a terminal a bar with rate and remaining time, else a line every five seconds.

use std::io::{IsTerminal, Write};

use handoff_core::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress arrives twice a second. A log gets one line in five seconds.
const STEPS_A_LINE: u32 = 10;
const TEMPLATE: &str = "{bar:32} {human_pos}/{human_len}  {per_sec:.dim}  {eta} left  {msg}";

pub(in crate::commands) struct Bar {
    bar: ProgressBar,
    /// Without a terminal: the number of progress messages shown so far.
    lines: Option<u32>,
}

impl Bar {
    pub(in crate::commands) fn new() -> Self {
        let lines = (!std::io::stderr().is_terminal()).then_some(0);
        Bar { lines, ..Bar::on(ProgressDrawTarget::stderr()) }
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is a constant. If it were invalid, the default one would be used.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Bar { bar, lines: None }
    }

    pub(in crate::commands) fn show(&mut self, progress: &Progress) {
        let done = progress.moved.saturating_add(progress.left);
        if let Some(shown) = &mut self.lines {
            if *shown % STEPS_A_LINE == 0 {
                let text = format!("{done}/{} done, {}", progress.total, counts(progress));
                // A progress line that cannot be written does not end the command.
                let _closed = writeln!(std::io::stderr(), "{text}");
            }
            *shown = shown.wrapping_add(1);
            return;
        }
        self.bar.set_length(progress.total);
        self.bar.set_message(counts(progress));
        self.bar.set_position(done);
    }

    /// Removes the bar, so that the next output starts on an empty line.
    pub(in crate::commands) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn counts(progress: &Progress) -> String {
    let mut text = format!("{} moved, {} in flight of {}", progress.moved, progress.in_flight, progress.limit);
    for (count, what) in [(progress.left, "left"), (progress.displaced, "displaced"), (progress.failures, "failures")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    if let Some(waits_for) = progress.waits_for {
        text.push_str(&format!(", waits for: {}", waits_for.name()));
    }
    text
}

#[cfg(test)]
mod tests {
    use handoff_core::WaitsFor;
    use indicatif::InMemoryTerm;

    use super::*;

    #[test]
    fn the_bar_shows_the_progress_and_is_removed_at_the_end() {
        let terminal = InMemoryTerm::new(4, 160);
        let mut bar = Bar::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        bar.show(&Progress { total: 2_000, moved: 500, in_flight: 8, limit: 8, left: 1, ..Progress::default() });
        bar.bar.force_draw();
        let shown = terminal.contents();
        for expected in ["=>", "501/2,000", "/s", "left", "500 moved, 8 in flight of 8, 1 left"] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        bar.end();
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn a_drain_that_starts_nothing_shows_what_it_waits_for() {
        let waiting = Progress { limit: 8, waits_for: Some(WaitsFor::Store), ..Progress::default() };
        assert_eq!(counts(&waiting), "0 moved, 0 in flight of 8, waits for: store");
    }

    #[test]
    fn the_bar_shows_inconsistent_numbers_without_failing() {
        let terminal = InMemoryTerm::new(4, 200);
        let mut bar = Bar::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        for (total, moved) in [(u64::MAX, u64::MAX), (1, u64::MAX), (u64::MAX, 1), (0, 7)] {
            bar.show(&Progress { total, moved, left: u64::MAX, ..Progress::default() });
            bar.bar.force_draw();
            assert!(terminal.contents().contains(&format!("{moved} moved")), "{}", terminal.contents());
        }
    }
}
