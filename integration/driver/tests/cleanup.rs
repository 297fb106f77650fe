//! The driver as a process, with a script in place of `elixir` on its PATH: however the driver ends, its
//! children are ended and it prints the reason.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for a loaded machine. No test waits this long unless the driver hangs.
const BOUND: Duration = Duration::from_secs(60);

/// Starts the driver. Its `elixir` is this shell script.
fn driver(dir: &Path, elixir: &str) -> Child {
    let script = dir.join("elixir");
    fs::write(&script, format!("#!/bin/sh\n{elixir}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_handoff_demo"))
        .args(["--quick", "--modes", "graceful"])
        .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
        .env("TMPDIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + BOUND;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// The pid that a child of the driver has written to a file.
fn child_pid(dir: &Path) -> Pid {
    wait_for("the child's start", || {
        let pid = fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
        Some(Pid::from_raw(pid))
    })
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sends the signal when a child runs, and checks that the child is ended.
fn interrupted_by(signal: Signal, dir: &Path) -> Output {
    let driver = driver(dir, "echo $$ > \"$TMPDIR/pid\"; exec sleep 1000");
    let child = child_pid(dir);
    kill(Pid::from_raw(driver.id().try_into().unwrap()), signal).unwrap();
    let output = driver.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(kill(child, None).is_err(), "the child still runs");
    output
}

#[test]
fn ctrl_c_ends_the_children_and_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let output = interrupted_by(Signal::SIGINT, dir.path());
    assert!(stderr(&output).contains("error: interrupted"), "{}", stderr(&output));
    let logs = fs::read_dir(dir.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(logs, 0, "the directory for logs is still there");
}

#[test]
fn sigterm_ends_the_children() {
    interrupted_by(Signal::SIGTERM, tempfile::tempdir().unwrap().path());
}

#[test]
fn a_node_that_ends_while_booting_is_reported_with_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let output = driver(dir.path(), "echo the reason >&2; exit 3").wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    for expected in ["ended by itself while booting nodes", "exit status: 3", "the reason", "logs are in"] {
        assert!(stderr.contains(expected), "no {expected:?} in {stderr}");
    }
}

#[test]
fn a_missing_command_for_nodes_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_handoff_demo"))
        .args(["--quick", "--beams", "/no/such/elixir,/no/such/other"])
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot start `/no/such/"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "directories are left behind");
}

#[test]
fn a_missing_elixir_is_reported_with_the_package_to_install() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_handoff_demo"))
        .arg("--quick")
        .env("PATH", dir.path())
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("apt-get install elixir erlang"), "{}", stderr(&output));
}
