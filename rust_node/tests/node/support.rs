//! The real node process, real BEAMs, and a peer whose messages the test chooses.

mod peer;
mod process;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Once;
use std::time::{Duration, Instant};

use rust_node::distribution::dial::{self, DialError};
use rust_node::distribution::handshake::Local;
use rust_node::distribution::{Cookie, Node as Dist, NodeName, names};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub use peer::Peer;
pub use process::Process;

const WAIT: &str = include_str!("beam/wait.exs");
const ASK: &str = include_str!("beam/ask.exs");

pub const BINARY: &str = env!("CARGO_BIN_EXE_durable-handoff-node");
pub const COOKIE: &str = "a-test-cookie";
/// The limit of every wait. No step takes nearly this long.
pub const SOON: Duration = Duration::from_secs(120);

/// What a command says of a node that did not answer within the seconds that it waits for it.
pub const LATE: &str = "no answer in time from ";

/// The loopback addresses of both families.
pub const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

pub fn node_name(prefix: &str) -> String {
    node_name_at(prefix, "127.0.0.1")
}

pub fn node_name_at(prefix: &str, host: &str) -> String {
    format!("{prefix}_{:08x}@{host}", rand::random::<u32>())
}

/// A port without a listener, reserved at every address of both families while the socket is kept. A server that sets the same
/// socket option may listen on it; the kernel gives the port to no other socket.
pub fn unused_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v6().expect("a socket");
    socket.set_reuseaddr(true).expect("set");
    socket.bind((Ipv6Addr::UNSPECIFIED, 0).into()).expect("a port");
    let port = socket.local_addr().expect("an address").port();
    (socket, port)
}

pub fn name(text: &str) -> NodeName {
    names::parse(text).expect("a node name")
}

pub fn local(name_text: &str, cookie: &str) -> Local {
    Local { name: name(name_text), creation: rand::random(), cookie: Cookie::new(cookie).expect("a cookie") }
}

/// The program, with the cookie of the tests.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("DURABLE_HANDOFF_COOKIE", COOKIE);
    command
}

/// Runs the program to its end.
pub fn ask(arguments: &[&str]) -> Output {
    program(arguments).output().expect("it runs")
}

/// What the program wrote, as text.
#[derive(Debug)]
pub struct Written {
    pub out: String,
    pub err: String,
}

impl Written {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("JSON and nothing else: {error}: {self:?}"))
    }
}

/// Runs the program to its end, which must be that exit code. It waits only seconds for a node that it dials or that is to
/// describe itself, so it runs again when one was late.
pub fn ended(code: i32, arguments: &[&str]) -> Written {
    let run = || {
        let output = ask(arguments);
        (output.status.code(), Written { out: text(&output.stdout), err: text(&output.stderr) })
    };
    let late = |written: &Written| written.err.contains(LATE) || written.err.contains("no answer for 3 s");
    let (ended, written) = again_while(run, |(ended, written)| *ended != Some(code) && late(written));
    assert_eq!(ended, Some(code), "{arguments:?}: {written:?}");
    written
}

/// Runs it again while its result is that of a delayed machine, until [`SOON`].
pub fn again_while<T>(mut run: impl FnMut() -> T, late: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + SOON;
    loop {
        let result = run();
        if !late(&result) || Instant::now() >= until {
            return result;
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `durable-handoff-node run`.
pub struct Node {
    pub process: Process,
    pub name: String,
    /// The address of the node's listener and of its HTTP service.
    pub address: IpAddr,
    pub port: u16,
    pub http: u16,
}

impl Node {
    pub fn start(arguments: &[&str]) -> Node {
        Node::start_as(&node_name("rust"), arguments)
    }

    pub fn start_as(name: &str, arguments: &[&str]) -> Node {
        Node::listening(name, "127.0.0.1:0", arguments)
    }

    /// Starts a node that is named by this address and listens on it.
    pub fn start_at(host: IpAddr, arguments: &[&str]) -> Node {
        Node::listening(&node_name_at("rust", &host.to_string()), &SocketAddr::from((host, 0)).to_string(), arguments)
    }

    pub fn listening(name: &str, address: &str, arguments: &[&str]) -> Node {
        Node::from(Command::new(BINARY), name, address, arguments)
    }

    /// Starts a node by `command`, which gets the node's arguments.
    pub fn from(mut command: Command, name: &str, address: &str, arguments: &[&str]) -> Node {
        let host = address.parse::<SocketAddr>().expect("an address").ip();
        port_mapper();
        let name = name.to_owned();
        command
            .args(["run", "--name", &name, "--listen", address])
            .args(["--http", &SocketAddr::from((host, 0)).to_string()])
            .args(arguments)
            .env("DURABLE_HANDOFF_COOKIE", COOKIE);
        let mut process = Process::spawn(&mut command);
        let port = port_of(&process.line("accepting connections address="));
        let http = port_of(&process.line("serving HTTP address="));
        Node { process, name, address: host, port, http }
    }

    /// The value of a counter or gauge; 0 if the series does not exist yet. Its name is given without the
    /// prefix that all have.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await;
        let start = format!("durable_handoff_{series} ");
        let line = text.lines().find(|line| line.starts_with(&start));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// Waits until a counter or gauge has at least that value.
    pub async fn counted(&self, series: &str, least: f64) {
        eventually(series, async || self.metric(series).await >= least).await;
    }

    /// Waits until the node has refused messages for that reason.
    pub async fn refused(&self, kind: &str, least: f64) {
        self.counted(&format!("refused_total{{kind=\"{kind}\"}}"), least).await;
    }

    /// Waits until a handshake ended in that way.
    pub async fn handshake(&self, kind: &str) {
        self.counted(&format!("handshakes_total{{kind=\"{kind}\"}}"), 1.0).await;
    }

    /// Waits until the node has that many connections.
    pub async fn connected(&self, least: f64) {
        self.counted("connections", least).await;
    }

    /// A new connection to the node's listener.
    pub async fn dial(&self) -> TcpStream {
        TcpStream::connect((self.address, self.port)).await.expect("accepted")
    }

    /// Requests a page of JSON.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str(body).expect("JSON")
    }

    /// Requests a page. Repeats the request while the answer says that the coordinator did not respond in
    /// time: such an answer shows only that the machine is slow.
    pub async fn get(&self, path: &str) -> String {
        let until = Instant::now() + SOON;
        loop {
            let answer = self.get_with(path, "").await;
            if !answer.contains("the coordinator does not answer") || Instant::now() >= until {
                return answer;
            }
        }
    }

    /// As `get`, with additional header lines.
    pub async fn get_with(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect((self.address, self.http)).await.expect("HTTP is served");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.child.try_wait().expect("it can be asked").is_none()
    }
}

/// Starts EPMD unless it runs. A BEAM would start it, but not every test starts a BEAM before the node.
fn port_mapper() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        assert!(Command::new("epmd").arg("-daemon").status().expect("Erlang is installed").success());
        // EPMD goes into the background before it listens.
        polled(|| std::net::TcpStream::connect(("127.0.0.1", 4369)).ok()).expect("EPMD listens");
    });
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address with a port")
}

/// Dials a name as the node does; the name may have a port.
pub async fn dial(node: &Dist, to: &str) -> Result<(), DialError> {
    dial::dial(node, &names::parse_seed(to).expect("a node name")).await
}

/// Repeats the question until there is an answer; `None` when that takes too long.
fn polled<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        let answer = ask();
        if answer.is_some() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Repeats the question until the condition is true.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not so in time: {what}");
}

/// Reads until the other side closes the connection or resets it.
pub async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.expect("closed");
    rest
}

/// Checks that the node runs, and that it accepts a new peer and answers it.
pub async fn still_serves(node: &mut Node) {
    assert!(node.is_alive());
    assert!(Peer::connect(node).await.ping().await);
}

/// A BEAM of one OTP release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Otp {
    pub root: Option<&'static str>,
}

/// The OTP of this machine, and the one in the root directory that `HANDOFF_OTP_ROOT` names (used with
/// `chroot`), where that variable is set.
pub fn otps() -> Vec<Otp> {
    let mut all = vec![Otp { root: None }];
    if let Ok(root) = std::env::var("HANDOFF_OTP_ROOT") {
        assert!(Path::new(&root).join("usr/bin/elixir").exists(), "HANDOFF_OTP_ROOT: no Elixir below {root}");
        all.push(Otp { root: Some(root.leak()) });
    }
    all
}

impl Otp {
    /// Runs Elixir code on a node of that name.
    pub fn run(self, node: &str, code: &str, environment: &[(&str, &str)], flags: &[&str]) -> Process {
        let mut command = match self.root {
            None => Command::new("elixir"),
            Some(root) => {
                let mut command = Command::new("chroot");
                command.args([root, "elixir"]);
                command
            }
        };
        let kind = if node.contains(['.', ':']) { "--name" } else { "--sname" };
        command.args([kind, node, "--cookie", COOKIE]).args(flags).args(["-e", code]).env("LC_ALL", "C.UTF-8");
        command.envs(environment.iter().copied());
        Process::spawn(&mut command)
    }

    /// A BEAM that waits to be connected.
    pub fn waiting(self, node: &str, environment: &[(&str, &str)], flags: &[&str]) -> Process {
        let mut beam = self.run(node, WAIT, environment, flags);
        beam.line("up");
        beam
    }

    /// Runs a BEAM at that host that uses the node in every way a BEAM can.
    pub fn asks(self, host: &str, rust: &Node, environment: &[(&str, &str)], flags: &[&str]) {
        let environment = [environment, &[("RUST", &rust.name)]].concat();
        let mut beam = self.run(&node_name_at("beam", host), ASK, &environment, flags);
        beam.line("all asked");
        assert_eq!(beam.exit_code(), Some(0));
    }
}
