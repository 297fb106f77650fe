//! Processes: BEAMs, and the node itself. Each ends when it is dropped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rust_node::distribution::handshake::Local;
use rust_node::distribution::tls::Tls;
use rust_node::distribution::{Cookie, Limits, Node, NodeOptions, names};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const COOKIE: &str = "bench";
/// The time limit of every wait.
pub const SOON: Duration = Duration::from_secs(120);
const SCRIPT: &str = include_str!("beam.exs");

/// A child process that has reported that it is up.
pub struct Process(Child);

impl Process {
    /// Starts it and waits for a line of its output that contains `text`. Returns what follows the text.
    pub fn start(command: &mut Command, text: &str) -> anyhow::Result<(Process, String)> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot be started")?;
        let out = child.stdout.take().context("no output")?;
        let process = Process(child);
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let found = lines.find_map(|line| line.split_once(text).map(|(_, rest)| rest.to_owned()));
        let rest = found.with_context(|| format!("it ended without saying {text:?}"))?;
        // The rest of the output is read, so that the child never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok((process, rest))
    }

    /// CPU time it has used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.0.id().to_string())
    }

    /// Resident memory, bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// CPU time that a process has used, user and system, of all its threads. Linux counts it in units of 10 ms.
pub fn cpu(pid: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The process name before these fields may contain spaces.
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}

/// An unused node name on `host`.
pub fn unique(prefix: &str, host: &str) -> String {
    format!("{prefix}_{:08x}@{host}", rand::random::<u32>())
}

/// A BEAM with the script's processes.
pub fn elixir(name: &str, erl: &str) -> anyhow::Result<Process> {
    let mut command = Command::new("elixir");
    command.args(["--sname", name, "--cookie", COOKIE]).env("LC_ALL", "C.UTF-8");
    if !erl.is_empty() {
        command.args(["--erl", erl]);
    }
    Ok(Process::start(command.args(["-e", SCRIPT]), "up")?.0)
}

/// A node inside this process.
pub fn own_node(name: &str, tls: Option<Tls>) -> anyhow::Result<Node> {
    let name = names::parse(name)?;
    let local = Local { name, creation: rand::random::<u32>() | 1, cookie: Cookie::new(COOKIE)? };
    // The first TLS handshake of a BEAM loads much code.
    let limits = Limits { handshake_timeout: SOON, ..Limits::default() };
    Ok(Node::new(NodeOptions { tls, ..NodeOptions::new(local, limits) }))
}

/// `durable-handoff-node run`, and the port of its HTTP service.
pub fn node(arguments: &[String]) -> anyhow::Result<(Process, u16)> {
    // Examples are built beside the programs.
    let program = std::env::current_exe()?;
    let program = program.ancestors().nth(2).context("no directory")?.join("durable-handoff-node");
    let mut command = Command::new(&program);
    command.args(["run", "--http", "127.0.0.1:0"]).args(arguments).env("DURABLE_HANDOFF_COOKIE", COOKIE);
    // Its log goes to standard error, which is read through a pipe.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.env("DURABLE_HANDOFF_COOKIE", COOKIE);
    let (process, address) =
        Process::start(&mut shell, "serving HTTP address=").with_context(|| program.display().to_string())?;
    let port = address.trim().rsplit(':').next().and_then(|port| port.parse().ok()).context("no port")?;
    Ok((process, port))
}

/// The body of an HTTP answer.
pub async fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}

/// Repeats the question until the answer is true.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if condition().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("not so in time: {what}")
}
