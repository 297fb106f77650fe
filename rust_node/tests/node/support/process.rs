//! Child processes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use super::{SOON, polled};

/// A child process whose output lines a test can wait for.
pub struct Process {
    pub child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Process {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (sender, lines) = channel();
        let out = child.stdout.take().expect("piped");
        let err = child.stderr.take().expect("piped");
        let also = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        std::thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).try_for_each(|line| also.send(line))
        });
        Process { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with that text. Returns the rest of the line.
    pub fn line(&mut self, text: &str) -> String {
        let line = self.line_unless_ended(text);
        line.unwrap_or_else(|| panic!("no line with {text:?} among:\n{}", self.seen.join("\n")))
    }

    /// As `line`, but returns `None` when the process ends without such a line.
    pub fn line_unless_ended(&mut self, text: &str) -> Option<String> {
        let until = Instant::now() + SOON;
        while let Some(line) = self.next(until) {
            if let Some((_, rest)) = line.split_once(text) {
                return Some(rest.trim().to_owned());
            }
        }
        None
    }

    /// The next line; `None` after the last one.
    fn next(&mut self, until: Instant) -> Option<&str> {
        match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.seen.push(line);
                self.seen.last().map(String::as_str)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no more in time behind:\n{}", self.seen.join("\n")),
        }
    }

    /// The lines read so far.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Every line of a process that has ended or is about to end, including lines that were not read yet.
    pub fn every_line(&mut self) -> &[String] {
        let until = Instant::now() + SOON;
        while self.next(until).is_some() {}
        &self.seen
    }

    /// Waits until the process ends. Returns its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        let ended = polled(|| self.child.try_wait().expect("it can be waited for"));
        let said = || (self.seen.join("\n"), self.lines.try_iter().collect::<Vec<_>>());
        ended.unwrap_or_else(|| panic!("it does not end; it said: {:?}", said())).code()
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill runs").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
