//! The driver as a process, with a script in place of `elixir` on its PATH: however the driver ends, its
//! children are ended and it prints the reason. Also what its faults and `integration/servers` do on a signal.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use handoff_demo::faults::table::Shown;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Long enough for a loaded machine. No test waits this long unless the driver hangs.
const BOUND: Duration = Duration::from_secs(60);

/// A file cannot be executed while it is open for writing, and what another test starts meanwhile has it open, too, until
/// that is executed itself.
static WRITES_OR_STARTS: Mutex<()> = Mutex::new(());

/// Writes a shell script.
fn script(path: &Path, text: &str) {
    let _alone = WRITES_OR_STARTS.lock();
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
    let path = format!("{}:/usr/bin:/bin", dir.display());
    spawn(Command::new(program).args(arguments).env("PATH", path).env("TMPDIR", dir))
}

fn spawn(command: &mut Command) -> Child {
    let _alone = WRITES_OR_STARTS.lock();
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
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
    let mut driver = Command::new(env!("CARGO_BIN_EXE_handoff_demo"));
    driver.args(["--quick", "--beams", "/no/such/elixir,/no/such/other"]).env("TMPDIR", dir.path());
    let output = spawn(&mut driver).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot start `/no/such/"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "directories are left behind");
}

#[test]
fn a_missing_elixir_is_reported_with_the_package_to_install() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Command::new(env!("CARGO_BIN_EXE_handoff_demo"));
    driver.arg("--quick").env("PATH", dir.path()).env("TMPDIR", dir.path());
    let output = spawn(&mut driver).wait_with_output().unwrap();
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

const WAITS: &str = "echo $$ >>\"$PIDS\"; exec sleep 100";

/// `integration/servers run`, with programs that only wait in the places of the storage servers and of what prepares them. Each
/// of them adds its id to the file "pids", and so does the command.
fn integration_servers(dir: &Path, command: &str) -> Command {
    let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers");
    let text = fs::read_to_string(&servers).unwrap();
    let version = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap().to_owned();
    let cache = |name: &str| dir.join(format!("{}-{}", name.to_lowercase(), version(name)));
    script(&cache("MINISTACK").join("bin/ministack"), WAITS);
    // Makes buckets, too, and says that it is ready in the folder of its third argument.
    let python = format!("[ \"$1\" != - ] || exit 0; [ $# -lt 3 ] || touch \"$3/ready\"; {WAITS}");
    script(&cache("MOTO").join("bin/python"), &python);
    for name in ["MINISTACK", "MOTO", "AZURITE"] {
        fs::create_dir_all(cache(name)).unwrap();
        fs::write(cache(name).join("complete"), "").unwrap();
    }
    script(&dir.join("bin/node"), WAITS);
    // Says which ports are free.
    script(&dir.join("bin/python3"), "echo 1 2 3 4 5");
    script(&dir.join("bin/store-servers"), &format!("echo http://127.0.0.1:1; {WAITS}"));
    let mut servers = Command::new(servers);
    servers
        .args(["run", "--", "sh", "-c", command])
        .env("PATH", format!("{}:/usr/bin:/bin", dir.join("bin").display()))
        .env("HANDOFF_SERVERS_CACHE", dir)
        .env("HANDOFF_STORE_SERVERS", dir.join("bin/store-servers"))
        .env("PIDS", dir.join("pids"))
        .env("TMPDIR", dir.join("temporary"));
    fs::create_dir(dir.join("temporary")).unwrap();
    servers
}

/// Five servers and the command.
const PROCESSES: usize = 6;

fn pids(dir: &Path) -> Option<Vec<i32>> {
    fs::read_to_string(dir.join("pids")).ok()?.lines().map(|line| line.parse().ok()).collect()
}

fn assert_ended(pids: Vec<i32>) {
    for pid in pids {
        assert!(kill(Pid::from_raw(pid), None).is_err(), "{pid} still runs");
    }
}

#[test]
fn integration_servers_ends_its_servers_and_its_command_when_it_alone_gets_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let mut started = spawn(&mut integration_servers(dir.path(), WAITS));
    let pids = wait_for("the start", || pids(dir.path()).filter(|pids| pids.len() == PROCESSES));
    send(Signal::SIGTERM, &started);
    let status = wait_for("the end", || started.try_wait().unwrap());
    assert_eq!(status.code(), Some(143));
    assert_ended(pids);
}

/// Bash runs the lines of BASH_ENV first: here, a trap before each command that sends the signal when `ENDS` processes have been
/// started. The next command of the script would have kept the id of the last one.
#[test]
fn integration_servers_ends_a_process_that_it_has_just_started() {
    let lines = r#"
        set -T
        last= count=0
        trap '[ "$BASH_SUBSHELL" != 0 ] || [ "${!:-}" = "$last" ] || {
          last=$! count=$((count + 1))
          [ "$count" != "$ENDS" ] || {
            until [ "$(cat "$PIDS" 2>/dev/null | wc -l)" = "$count" ]; do sleep 0.01; done
            kill -TERM $$
          }
        }' DEBUG
    "#;
    for ends in 1..=PROCESSES {
        let dir = tempfile::tempdir().unwrap();
        let environment = dir.path().join("environment");
        fs::write(&environment, lines).unwrap();
        let mut servers = integration_servers(dir.path(), WAITS);
        let mut started = spawn(servers.env("BASH_ENV", environment).env("ENDS", ends.to_string()));
        let status = wait_for("the end", || started.try_wait().unwrap());
        assert_eq!(status.code(), Some(143));
        let pids = pids(dir.path()).unwrap();
        assert_eq!(pids.len(), ends);
        assert_ended(pids);
    }
}

#[test]
fn a_second_sigterm_does_not_keep_integration_servers_from_its_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let command = "trap 'kill -TERM $PPID; exit' TERM; echo $$ >>\"$PIDS\"; while :; do sleep 0.05; done";
    let mut started = spawn(&mut integration_servers(dir.path(), command));
    wait_for("the start", || pids(dir.path()).filter(|pids| pids.len() == PROCESSES));
    send(Signal::SIGTERM, &started);
    let status = wait_for("the end", || started.try_wait().unwrap());
    assert_eq!(status.code(), Some(143));
    assert_eq!(fs::read_dir(dir.path().join("temporary")).unwrap().count(), 0, "its directory is left behind");
}

/// A loaded Azurite makes the container, and answers when the script has given up waiting and asks again.
#[test]
fn integration_servers_takes_a_container_that_an_earlier_attempt_has_made() {
    let dir = tempfile::tempdir().unwrap();
    let azurite = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = azurite.local_addr().unwrap().port();
    let mut servers = integration_servers(dir.path(), "exit 9");
    let python = format!("[ $# = 4 ] && exec /usr/bin/python3 \"$@\"; echo 1 2 3 {port} 5");
    script(&dir.path().join("bin/python3"), &python);
    std::thread::spawn(move || {
        for mut request in azurite.incoming().map_while(Result::ok) {
            // Closing with unread data would reset the connection.
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                request.read_exact(&mut byte).unwrap();
                read.extend(byte);
            }
            write!(request, "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let mut started = spawn(&mut servers);
    let status = wait_for("the end", || started.try_wait().unwrap());
    assert_eq!(status.code(), Some(9), "the command ran");
}
