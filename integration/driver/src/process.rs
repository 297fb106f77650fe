//! A child process that is killed on drop: after success, an error or a panic no node is left running.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How many bytes of a log are shown when its node ends by itself.
const LOG_TAIL_BYTES: u64 = 4_000;

/// A running child process whose output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own: Ctrl-C at the terminal reaches only the driver, which
    /// then ends its children.
    pub fn spawn(mut command: Command, log: &Path) -> io::Result<Self> {
        let output = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0).spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The process id. The system does not reuse it until the process has been waited for.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM, as a deploy does. Not an error if it has ended.
    pub fn sigterm(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Sends a signal. Not an error if it has ended.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.status()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// The processor time of all its threads in milliseconds; `None` after its end.
    pub fn cpu_ms(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        cpu_ms(&stat).filter(|ms| *ms > 0.0)
    }

    /// Its output so far; empty when it cannot be read. Bytes that are not text are replaced.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let tail = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match tail() {
            Ok(bytes) if bytes.is_empty() => "(it wrote nothing)".to_owned(),
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
            Err(error) => format!("(its log cannot be read: {error})"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error here has no remedy. A node also halts by itself when its control connection closes.
        let _ = self.kill();
    }
}

/// User and system time from a line of /proc/PID/stat, whose second field, the name, may have any character.
fn cpu_ms(stat: &str) -> Option<f64> {
    /// Linux shows times to programs in hundredths of a second.
    const MS_PER_TICK: f64 = 10.0;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok().map(f64::from);
    // Fields 14 and 15. The remaining fields begin with the third.
    Some((ticks(11)? + ticks(12)?) * MS_PER_TICK)
}

/// For tests of processes.
#[cfg(test)]
pub mod testing {
    use std::time::{Duration, Instant};

    /// What `condition` returns as soon as it returns something. Fails after thirty seconds.
    pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let bound = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(Instant::now() < bound, "{what} did not happen");
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::testing::wait_for;
    use super::*;

    #[test]
    fn processor_time_is_read_after_a_name_with_spaces_and_brackets() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 200 0 0 150 25 0 0 20 0 3 0 100 1 2 3";
        assert_eq!(cpu_ms(stat), Some(1_750.0));
        assert_eq!(cpu_ms("42 (ended"), None);
    }

    fn shell(script: &str, dir: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn(command, &dir.join("log")).unwrap()
    }

    fn exists(pid: u32) -> bool {
        kill(Pid::from_raw(pid.try_into().unwrap()), None).is_ok()
    }

    fn ended(process: &mut Process) -> ExitStatus {
        wait_for("the end of the process", || process.status().unwrap())
    }

    #[test]
    fn a_dropped_process_is_killed_even_when_it_ignores_sigterm() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("trap '' TERM; echo ignored; exec sleep 1000", dir.path());
        wait_for("the start of the process", || process.log().contains("ignored").then_some(()));
        process.sigterm().unwrap();
        let pid = process.id();
        assert!(process.status().unwrap().is_none(), "it has ended");
        drop(process);
        assert!(!exists(pid));
    }

    #[test]
    fn a_panic_of_the_driver_ends_its_processes() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell("exec sleep 1000", dir.path());
        let pid = process.id();
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            assert!(!exists(process.id()), "a failing assertion while the process runs");
        }));
        assert!(panicked.is_err());
        assert!(!exists(pid));
    }

    #[test]
    fn sigterm_reaches_the_process_and_is_harmless_after_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("exec sleep 1000", dir.path());
        process.sigterm().unwrap();
        assert!(!ended(&mut process).success());
        process.sigterm().unwrap();
    }

    #[test]
    fn the_log_has_both_outputs_and_only_its_end_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("seq 1 3000; echo the reason >&2", dir.path());
        ended(&mut process);
        let tail = process.log_tail();
        assert!(tail.ends_with("3000\nthe reason"), "{tail}");
        assert!(tail.len() <= 4_000);
    }
}
