//! The driver as a process, with a script in place of `elixir` on its PATH: however the driver ends, its
//! children are ended and it prints the reason. Also what its faults and `integration/servers` do on a signal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use handoff_demo::faults::table::Shown;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for a loaded machine. No test waits this long unless the driver hangs.
const BOUND: Duration = Duration::from_secs(60);

/// Writes a shell script.
fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts the driver. Its `elixir` is this shell script.
fn driver(dir: &Path, elixir: &str) -> Child {
    start(env!("CARGO_BIN_EXE_handoff_demo"), &["--quick", "--modes", "graceful"], dir, elixir)
}

fn start(program: &str, arguments: &[&str], dir: &Path, elixir: &str) -> Child {
    script(&dir.join("elixir"), elixir);
    Command::new(program)
        .args(arguments)
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

fn send(signal: Signal, to: &Child) {
    kill(Pid::from_raw(to.id().try_into().unwrap()), signal).unwrap();
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sends the signal when a child runs, and checks that the child is ended.
fn interrupted_by(signal: Signal, dir: &Path) -> Output {
    let driver = driver(dir, "echo $$ > \"$TMPDIR/pid\"; exec sleep 1000");
    let child = child_pid(dir);
    send(signal, &driver);
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

#[test]
fn an_interrupt_keeps_the_results_of_the_runs_of_faults_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("runs.json");
    let arguments = ["--only", "target-killed-before", "--times", "1000", "--json", json.to_str().unwrap()];
    // Nodes end at once, until there is a file.
    let elixir = "[ -e \"$TMPDIR/hang\" ] || exit 3; echo $$ > \"$TMPDIR/pid\"; exec sleep 1000";
    let mut driver = start(env!("CARGO_BIN_EXE_handoff_faults"), &arguments, dir.path(), elixir);
    let mut lines = BufReader::new(driver.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("FAILED")), "no run has ended");
    fs::write(dir.path().join("hang"), "").unwrap();
    child_pid(dir.path());
    send(Signal::SIGINT, &driver);
    lines.for_each(drop);
    assert_eq!(driver.wait().unwrap().code(), Some(130));
    let runs: Vec<Shown> = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert!(!runs.is_empty(), "no run is kept");
    assert!(runs.iter().all(|run| run.line().contains("exit status: 3")), "{runs:?}");
}

/// Programs that only wait take the places of the storage servers and of what prepares them.
#[test]
fn integration_servers_ends_its_servers_and_its_command_when_it_alone_gets_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers");
    let text = fs::read_to_string(&servers).unwrap();
    let version = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap().to_owned();
    let cache = |name: &str| dir.path().join(format!("{}-{}", name.to_lowercase(), version(name)));
    let waits = "echo $$ >>\"$PIDS\"; exec sleep 100";
    script(&cache("MINISTACK").join("bin/ministack"), waits);
    // Makes buckets, too, and says that it is ready in the folder of its third argument.
    let python = format!("[ \"$1\" != - ] || exit 0; [ $# -lt 3 ] || touch \"$3/ready\"; {waits}");
    script(&cache("MOTO").join("bin/python"), &python);
    for name in ["MINISTACK", "MOTO", "AZURITE"] {
        fs::create_dir_all(cache(name)).unwrap();
        fs::write(cache(name).join("complete"), "").unwrap();
    }
    script(&dir.path().join("bin/node"), waits);
    // Says which ports are free.
    script(&dir.path().join("bin/python3"), "echo 1 2 3 4 5");
    script(&dir.path().join("bin/store-servers"), &format!("echo http://127.0.0.1:1; {waits}"));
    let pids = dir.path().join("pids");
    let mut started = Command::new(servers)
        .args(["run", "--", "sh", "-c", waits])
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().join("bin").display()))
        .env("HANDOFF_SERVERS_CACHE", dir.path())
        .env("HANDOFF_STORE_SERVERS", dir.path().join("bin/store-servers"))
        .env("PIDS", &pids)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Five servers and the command.
    let pids = wait_for("the start", || {
        let text = fs::read_to_string(&pids).ok()?;
        let pids: Vec<i32> = text.lines().map(|line| line.parse()).collect::<Result<_, _>>().ok()?;
        (pids.len() == 6).then_some(pids)
    });
    send(Signal::SIGTERM, &started);
    let status = wait_for("the end", || started.try_wait().unwrap());
    assert_eq!(status.code(), Some(143));
    for pid in pids {
        assert!(kill(Pid::from_raw(pid), None).is_err(), "{pid} still runs");
    }
}
