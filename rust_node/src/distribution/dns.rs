//! Looks up SRV records, which programs cannot get from the system's resolver.
//!
//! Guarantee: each server has [`ANSWER`] for each transport, and the size of its answer is bounded
//! ([`answer`]).
//!
//! UDP is tried first, then TCP if the answer was truncated (RFC 1035, 2782 and 7766).

mod answer;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

pub use answer::{AnswerError, Service};
use answer::{answers, is_cut, question, read};

const ANSWER: Duration = Duration::from_secs(1);
const PORT: u16 = 53;
/// The number of servers that the system's resolver uses.
const SERVERS: usize = 3;
const SEARCH: usize = 6;

/// The DNS servers and how names are completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with fewer dots is first asked with the search domains appended.
    dots: usize,
    /// The time limit of an answer over one transport.
    patience: Duration,
}

impl Resolver {
    /// A resolver that asks the given server, or the system's.
    pub(super) async fn new(server: Option<SocketAddr>) -> io::Result<Self> {
        match server {
            Some(server) => Ok(Resolver { servers: vec![server], ..Resolver::read("") }),
            None => Ok(Resolver::read(&tokio::fs::read_to_string("/etc/resolv.conf").await?)),
        }
    }

    fn read(text: &str) -> Self {
        let mut resolver = Resolver { servers: vec![], search: vec![], dots: 1, patience: ANSWER };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    resolver.servers.extend(server.map(|server| SocketAddr::from((server, PORT))));
                }
                Some("search" | "domain") => {
                    // A lone dot means no search domain.
                    let domains = words.map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty());
                    resolver.search = domains.take(SEARCH).map(str::to_owned).collect();
                }
                Some("options") => {
                    let dots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    resolver.dots = dots.unwrap_or(resolver.dots);
                }
                _ => {}
            }
        }
        resolver.servers.truncate(SERVERS);
        resolver
    }

    /// The names to ask for, in order.
    fn names(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let completed = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let as_it_is = std::iter::once(name.to_owned());
        if name.matches('.').count() < self.dots {
            completed.chain(as_it_is).collect()
        } else {
            as_it_is.chain(completed).collect()
        }
    }

    /// The SRV records of a name, or the error of the last server that was asked; `NotFound` without servers.
    pub(super) async fn services(&self, name: &str) -> io::Result<Vec<Service>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no DNS server is known");
        for name in self.names(name) {
            // A name with a search domain appended may be too long.
            let Some(question) = question(rand::random(), &name) else {
                last = io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a DNS name"));
                continue;
            };
            for server in &self.servers {
                match ask(*server, &question, self.patience).await {
                    Ok(services) if !services.is_empty() => return Ok(services),
                    Ok(_) => last = io::Error::new(io::ErrorKind::NotFound, format!("{name} has no SRV records")),
                    Err(error) => last = io::Error::new(error.kind(), format!("{name} at {server}: {error}")),
                }
            }
        }
        Err(last)
    }
}

async fn ask(server: SocketAddr, question: &[u8], patience: Duration) -> io::Result<Vec<Service>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let answer = match timeout(patience, over_udp(server, question)).await.map_err(late)?? {
        answer if is_cut(&answer) => timeout(patience, over_tcp(server, question)).await.map_err(late)??,
        answer => answer,
    };
    read(&answer, question).map_err(|error| match error {
        AnswerError::NoName => io::Error::new(io::ErrorKind::NotFound, error),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 4_096];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Other programs may send to this port, too.
        if answers(&answer[..length], question).is_some() {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::answer::{LABEL, NAME, RECORDS};
    use super::*;

    #[test]
    fn names_are_completed_as_the_system_does_it() {
        let text =
            "nameserver 10.0.0.10\nnameserver fdaa::3\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
        let resolver = Resolver::read(text);
        assert_eq!(resolver.servers, ["10.0.0.10:53".parse().expect("one"), "[fdaa::3]:53".parse().expect("one")]);
        assert_eq!(
            resolver.names("_dist._tcp.app"),
            ["_dist._tcp.app.a.svc.cluster.local", "_dist._tcp.app.svc.cluster.local", "_dist._tcp.app"]
        );
        assert_eq!(resolver.names("_dist._tcp.app."), ["_dist._tcp.app"]);
        assert_eq!(Resolver { dots: 1, ..resolver }.names("_dist._tcp.app")[0], "_dist._tcp.app");
        for name in ["", "a..b", &"a".repeat(64), &"abc.".repeat(80)] {
            assert!(question(1, name).is_none(), "{name}");
        }
    }

    const ASKED: &str = "_dist._tcp.app.internal.";
    /// A limit that no test reaches.
    const LONG: Duration = Duration::from_secs(120);

    /// The record of a service at `host`.
    fn service(host: &[u8]) -> Vec<u8> {
        let length = u16::try_from(host.len() + 6).expect("short").to_be_bytes();
        [b"\xc0\x0c\0\x21\0\x01\0\0\0\x3c", &length[..], b"\0\0\0\0\x23\x91", host].concat()
    }

    fn answer(question: &[u8], flags: u8, count: u16, records: &[u8]) -> Vec<u8> {
        let mut answer = [question, records].concat();
        answer[2] = flags;
        answer[6..8].copy_from_slice(&count.to_be_bytes());
        answer
    }

    fn good(question: &[u8]) -> Vec<u8> {
        answer(question, 0x81, 1, &service(b"\x01a\0"))
    }

    fn found() -> Vec<Service> {
        vec![Service { host: "a".to_owned(), port: 9_105 }]
    }

    fn at(servers: Vec<SocketAddr>, patience: Duration) -> Resolver {
        Resolver { servers, patience, ..Resolver::read("") }
    }

    /// A UDP and a TCP socket with the same port.
    async fn sockets(address: IpAddr) -> (UdpSocket, TcpListener) {
        loop {
            let socket = UdpSocket::bind((address, 0)).await.expect("a port");
            // Another process may use that TCP port.
            if let Ok(listener) = TcpListener::bind(socket.local_addr().expect("an address")).await {
                return (socket, listener);
            }
        }
    }

    /// Answers one question over UDP with these messages and one over TCP with these bytes, then closes.
    async fn serve(
        (socket, listener): (UdpSocket, TcpListener),
        over_udp: impl FnOnce(&[u8]) -> Vec<Vec<u8>>,
        over_tcp: impl FnOnce(&[u8]) -> Vec<u8>,
    ) {
        let mut question = [0; 512];
        let (length, from) = socket.recv_from(&mut question).await.expect("asked");
        for message in over_udp(&question[..length]) {
            socket.send_to(&message, from).await.expect("sent");
        }
        let (mut stream, _) = listener.accept().await.expect("asked");
        let _length = stream.read_u16().await.expect("asked");
        stream.read_exact(&mut question[..length]).await.expect("asked");
        // The client may have read enough and closed the connection.
        let _closed = stream.write_all(&over_tcp(&question[..length])).await;
    }

    const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    #[tokio::test]
    async fn answers_to_other_questions_and_from_other_servers_are_ignored() {
        for address in LOOPBACK {
            let (socket, _listener) = sockets(address).await;
            let resolver = at(vec![socket.local_addr().expect("an address")], LONG);
            let serving = tokio::spawn(async move {
                let mut buffer = [0; 512];
                let (length, from) = socket.recv_from(&mut buffer).await.expect("asked");
                let question = &buffer[..length];
                let other = |at: usize| {
                    let mut message = answer(question, 0x81, 1, &service(b"\x05wrong\0"));
                    message[at] ^= 1;
                    message
                };
                let stranger = UdpSocket::bind((address, 0)).await.expect("a port");
                // The system may report that the port is closed for this sender.
                let _refused = stranger.send_to(&answer(question, 0x81, 1, &service(b"\x05wrong\0")), from).await;
                // Wrong id, wrong name, wrong type, and a question instead of an answer.
                for message in [other(0), other(14), other(length - 3), question.to_vec(), vec![], good(question)] {
                    socket.send_to(&message, from).await.expect("sent");
                }
            });
            assert_eq!(resolver.services(ASKED).await.expect("an answer"), found());
            serving.await.expect("served");
        }
    }

    #[tokio::test]
    async fn a_truncated_answer_is_read_over_tcp_and_a_server_that_hangs_there_times_out() {
        for address in LOOPBACK {
            let cut = |question: &[u8]| vec![answer(question, 0x83, 0, &[])];
            let both = sockets(address).await;
            let resolver = at(vec![both.0.local_addr().expect("an address")], LONG);
            let whole = |question: &[u8]| {
                let good = good(question);
                [&u16::try_from(good.len()).expect("short").to_be_bytes(), &*good].concat()
            };
            let serving = tokio::spawn(serve(both, cut, whole));
            assert_eq!(resolver.services(ASKED).await.expect("an answer"), found());
            serving.await.expect("served");
            // A truncated UDP answer. Over TCP one server sends nothing, the other only the length.
            let (silent, half) = (sockets(address).await, sockets(address).await);
            let servers = [&silent, &half].map(|(socket, _)| socket.local_addr().expect("an address"));
            let hanging = tokio::spawn(async move {
                let mut held = Vec::new();
                for ((socket, listener), bytes) in [(silent, &[][..]), (half, &[0xff, 0xff, 1])] {
                    let mut question = [0; 512];
                    let (length, from) = socket.recv_from(&mut question).await.expect("asked");
                    socket.send_to(&cut(&question[..length])[0], from).await.expect("sent");
                    let (mut stream, _) = listener.accept().await.expect("asked");
                    stream.write_all(bytes).await.expect("sent");
                    held.push(stream);
                }
                std::future::pending::<()>().await;
            });
            let resolver = at(servers.to_vec(), Duration::from_secs(1));
            let error = resolver.services(ASKED).await.expect_err("none answers");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
            hanging.abort();
        }
    }

    /// Bytes to change. Positions are taken modulo the length.
    type Changes = Vec<(usize, u8)>;

    fn changed(mut message: Vec<u8>, changes: &Changes) -> Vec<u8> {
        for (at, byte) in changes {
            let at = at % message.len();
            message[at] = *byte;
        }
        message
    }

    /// Arbitrary records of an answer: services, their addresses, and random bytes.
    fn records() -> impl Strategy<Value = Vec<u8>> {
        let name = prop_oneof![
            Just(b"\x05pod-1\xc0\x17".to_vec()),
            Just([[b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4), vec![0]].concat()),
            prop::collection::vec(any::<u8>(), 0..40),
        ];
        let record = prop_oneof![
            4 => name.prop_map(|name| service(&name)),
            2 => any::<[u8; 16]>().prop_map(|to| [b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10", &to[..]].concat()),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ];
        prop::collection::vec(record, 0..30).prop_map(|records| records.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// The hostile answer comes over both transports. A valid answer follows for a client that ignores
        /// the hostile one.
        #[test]
        fn whatever_a_server_answers_is_an_error_or_a_bounded_list(
            records in records(),
            count: u16,
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            over_tcp: bool,
            length in prop::option::of(any::<u16>()),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let (result, passed_over) = runtime.block_on(async {
                let both = sockets(LOOPBACK[usize::from(count % 2)]).await;
                let resolver = at(vec![both.0.local_addr().expect("an address")], LONG);
                let (of_udp, of_tcp) = (records.clone(), records);
                let (told, passed_over) = tokio::sync::oneshot::channel();
                let udp = move |question: &[u8]| {
                    let message = if over_tcp { answer(question, 0x83, 0, &[]) } else {
                        changed(answer(question, 0x81, count, &of_udp), &changes)
                    };
                    let _over = told.send(answers(&message, question).is_none());
                    vec![message, good(question)]
                };
                let tcp = move |question: &[u8]| {
                    let message = answer(question, 0x81, count, &of_tcp);
                    let length = length.unwrap_or(u16::try_from(message.len()).expect("short"));
                    [&length.to_be_bytes(), &*message].concat()
                };
                let serving = tokio::spawn(serve(both, udp, tcp));
                let result = resolver.services(ASKED).await;
                serving.abort();
                (result, passed_over.await.expect("asked"))
            });
            match result {
                Ok(services) if passed_over => prop_assert_eq!(services, found()),
                Ok(services) => {
                    prop_assert!((1..=RECORDS).contains(&services.len()));
                    prop_assert!(services.iter().all(|service| (1..=NAME).contains(&service.host.len())));
                }
                Err(error) => prop_assert!(!passed_over && error.kind() != io::ErrorKind::TimedOut, "{}", error),
            }
        }
    }

    #[tokio::test]
    async fn an_invalid_search_domain_does_not_keep_the_others_from_being_used() {
        // systemd-resolved writes this line when there is no search domain.
        assert_eq!(Resolver::read("search .\n").names("_dist._tcp.app"), ["_dist._tcp.app"]);
        let both = sockets(LOOPBACK[0]).await;
        let servers = vec![both.0.local_addr().expect("an address")];
        let serving = tokio::spawn(serve(both, |question| vec![good(question)], |_question| Vec::new()));
        let search = vec!["x".repeat(LABEL + 1), "internal".to_owned()];
        let resolver = Resolver { search, dots: 5, ..at(servers, LONG) };
        assert_eq!(resolver.services("_dist._tcp.app").await.expect("an answer"), found());
        serving.abort();
    }
}
