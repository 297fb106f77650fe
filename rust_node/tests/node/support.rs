//! The real node process, real BEAMs, and a peer whose messages the test chooses.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use etf::{Pid, Term};
use handoff_wire::{Message, NODE_PROCESS};
use rust_node::distribution::control::{self, Control};
use rust_node::distribution::dial::{self, DialError};
use rust_node::distribution::frame::{self, Frame};
use rust_node::distribution::handshake::{self, HandshakeError, Local, Prefix};
use rust_node::distribution::{Cookie, Node as Dist, NodeName, names};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub const BINARY: &str = env!("CARGO_BIN_EXE_durable-handoff-node");
pub const COOKIE: &str = "a-test-cookie";
/// The limit of every wait. No step takes nearly this long.
pub const SOON: Duration = Duration::from_secs(120);

/// The loopback addresses of both families.
pub const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

pub fn node_name(prefix: &str) -> String {
    node_name_at(prefix, "127.0.0.1")
}

pub fn node_name_at(prefix: &str, host: &str) -> String {
    format!("{prefix}_{:08x}@{host}", rand::random::<u32>())
}

/// A port without a listener, reserved while the socket is kept. A server that sets the same socket option
/// may listen on it; the kernel gives the port to no other socket.
pub fn unused_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("set");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let port = socket.local_addr().expect("an address").port();
    (socket, port)
}

pub fn name(text: &str) -> NodeName {
    names::parse(text).expect("a node name")
}

pub fn local(name_text: &str, cookie: &str) -> Local {
    Local { name: name(name_text), creation: rand::random(), cookie: Cookie::new(cookie).expect("a cookie") }
}

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
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if let Some((_, rest)) = line.split_once(text) {
                        return Some(rest.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no line with {text:?} among:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// The lines read so far.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Every line of a process that has ended or is about to end, including lines that were not read yet.
    pub fn every_line(&mut self) -> &[String] {
        let until = Instant::now() + SOON;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return &self.seen,
                Err(RecvTimeoutError::Timeout) => panic!("it goes on:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Waits until the process ends. Returns its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end; it said:\n{}\n{:?}", self.seen.join("\n"), self.lines.try_iter().collect::<Vec<_>>());
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
        let port = port(&process.line("accepting connections address="));
        let http = port_of_http(&mut process);
        Node { process, name, address: host, port, http }
    }

    /// The value of a counter or gauge; 0 if the series does not exist yet.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await;
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// Waits until a counter has at least that value.
    pub async fn counted(&self, series: &str, least: f64) {
        eventually(series, async || self.metric(series).await >= least).await;
    }

    /// Requests a page. Repeats the request while the answer says that the coordinator did not respond in
    /// time: such an answer shows only that the machine is slow.
    pub async fn get(&self, path: &str) -> String {
        let until = Instant::now() + SOON;
        loop {
            let answer = self.get_once(path).await;
            if !answer.contains("the coordinator does not answer") || Instant::now() >= until {
                return answer;
            }
        }
    }

    async fn get_once(&self, path: &str) -> String {
        self.get_with(path, "").await
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
        let until = Instant::now() + SOON;
        while std::net::TcpStream::connect(("127.0.0.1", 4369)).is_err() {
            assert!(Instant::now() < until, "EPMD does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address with a port")
}

fn port_of_http(process: &mut Process) -> u16 {
    port(&process.line("serving HTTP address="))
}

/// Dials a name as the node does; the name may have a port.
pub async fn dial(node: &Dist, to: &str) -> Result<(), DialError> {
    dial::dial(node, &names::parse_seed(to).expect("a node name")).await
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

/// Checks that the node runs, and that it accepts a new peer and answers it.
pub async fn still_serves(node: &mut Node) {
    assert!(node.is_alive());
    assert!(Peer::connect(node).await.ping().await);
}

/// A peer whose handshake is complete. A test chooses its messages.
pub struct Peer {
    pub stream: TcpStream,
    pub name: String,
    pub pid: Pid,
    buffer: Vec<u8>,
}

impl Peer {
    pub async fn connect(node: &Node) -> Peer {
        Peer::connect_as(node, &node_name("peer"), COOKIE).await.expect("let in")
    }

    pub async fn connect_as(node: &Node, own: &str, cookie: &str) -> Result<Peer, HandshakeError> {
        Peer::connect_over(TcpStream::connect((node.address, node.port)).await?, node, own, cookie).await
    }

    /// As `connect`, over the given connection.
    pub async fn connect_over(stream: TcpStream, node: &Node, own: &str, cookie: &str) -> Result<Peer, HandshakeError> {
        let local = local(own, cookie);
        let (stream, _) = handshake::connect(stream, Prefix::Two, &local, &name(&node.name)).await?;
        let pid = Pid { node: own.into(), id: 1, serial: 0, creation: local.creation };
        Ok(Peer { stream, name: own.to_owned(), pid, buffer: Vec::new() })
    }

    /// Sends control part and payload unchanged.
    pub async fn raw(&mut self, control: &Term, payload: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&framed(control, payload)).await
    }

    /// Sends to a registered name.
    pub async fn send_to(&mut self, process: &str, payload: &[u8]) -> std::io::Result<()> {
        self.raw(&self.reg_send(process), payload).await
    }

    fn reg_send(&self, process: &str) -> Term {
        let unused = etf::atom("");
        etf::tuple([etf::uint(6), self.pid.clone().into(), unused, etf::atom(process)])
    }

    /// Sends a request whose answer has `length` bytes, and does not read the answer.
    pub async fn ask_for(&mut self, length: usize) -> std::io::Result<()> {
        // The answer to a ping repeats the tag.
        let from = etf::tuple([self.pid.clone().into(), etf::binary(vec![7; length])]);
        let question = etf::tuple([etf::atom("is_auth"), etf::atom(&self.name)]);
        let request = etf::tuple([etf::atom("$gen_call"), from, question]);
        self.send_to("net_kernel", &etf::encode(&request).expect("encodes")).await
    }

    pub async fn tell(&mut self, message: impl Into<Message>) {
        self.tell_all([message.into()]).await;
    }

    /// Sends all messages in one write.
    pub async fn tell_all(&mut self, messages: impl IntoIterator<Item = Message>) {
        let control = self.reg_send(NODE_PROCESS);
        let frame = |message: Message| framed(&control, &message.to_bytes().expect("encodes"));
        let frames: Vec<u8> = messages.into_iter().flat_map(frame).collect();
        self.stream.write_all(&frames).await.expect("sent");
    }

    /// The next message; ticks are skipped. `None` means that the node closed the connection.
    pub async fn receive(&mut self) -> Option<(Control, Vec<u8>)> {
        let wait = async {
            loop {
                match frame::read(&mut self.stream, &mut self.buffer, 1 << 24).await {
                    Ok(Frame::Tick) => {}
                    Ok(Frame::Message(message)) => {
                        let (control, payload) = control::parse(message).expect("the node sends what it takes");
                        return Some((control, payload.map_or_else(Vec::new, |payload| payload.as_bytes().to_vec())));
                    }
                    Err(_) => return None,
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("an answer or the end, in time")
    }

    /// The next drain message. Other messages are skipped.
    pub async fn hear(&mut self) -> Message {
        loop {
            let (_, payload) = self.receive().await.expect("connected");
            if let Ok(message) = Message::from_bytes(&payload) {
                return message;
            }
        }
    }

    /// True when the node answers a ping over this connection.
    pub async fn ping(&mut self) -> bool {
        let tag = etf::uint(rand::random());
        let from = etf::tuple([self.pid.clone().into(), tag.clone()]);
        let question = etf::tuple([etf::atom("is_auth"), etf::atom(&self.name)]);
        let request = etf::tuple([etf::atom("$gen_call"), from, question]);
        if self.send_to("net_kernel", &etf::encode(&request).expect("encodes")).await.is_err() {
            return false;
        }
        let expected = etf::encode(&etf::tuple([tag, etf::atom("yes")])).expect("encodes");
        while let Some((_, payload)) = self.receive().await {
            if payload == expected {
                return true;
            }
        }
        false
    }
}

fn framed(control: &Term, payload: &[u8]) -> Vec<u8> {
    let frame = frame::build(|out| {
        out.extend(etf::encode(control)?);
        out.extend(payload);
        Ok::<_, etf::Error>(())
    });
    frame.expect("encodes")
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
}
