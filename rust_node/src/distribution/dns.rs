//! SRV records, which the system's resolver does not look up for programs.
//!
//! Guarantee: of an answer at most [`LONGEST`] records are taken, of a name at most 255 bytes, and a compressed
//! name refers only to what stands before it, so no answer keeps the reader busy or makes it hold more. An
//! answer counts only if it repeats the number and the question. Each server has [`ANSWER`] for each transport.
//!
//! UDP first, TCP for an answer that was cut (RFC 1035, 2782 and 7766).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::resolve::LONGEST;

const ANSWER: Duration = Duration::from_secs(1);
const PORT: u16 = 53;
/// As the system's resolver takes them.
const SERVERS: usize = 3;
const SEARCH: usize = 6;
/// Of a name, and of a label in it.
const NAME: usize = 255;
const LABEL: usize = 63;
const SRV: u16 = 33;
const INTERNET: u16 = 1;

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub host: String,
    pub port: u16,
}

/// Why an answer is of no use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    #[error("a malformed answer")]
    Malformed,
    /// Another number or question than asked.
    #[error("an answer to something else")]
    Other,
    #[error("no such name")]
    NoName,
    /// The response code of the server.
    #[error("the server answers with code {0}")]
    Code(u8),
}

/// The DNS servers and how names are completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with fewer dots is completed before it is asked as it is.
    dots: usize,
}

impl Resolver {
    /// That server, or the system's.
    pub(super) async fn new(server: Option<SocketAddr>) -> io::Result<Self> {
        match server {
            Some(server) => Ok(Resolver { servers: vec![server], search: vec![], dots: 1 }),
            None => Ok(Resolver::read(&tokio::fs::read_to_string("/etc/resolv.conf").await?)),
        }
    }

    fn read(text: &str) -> Self {
        let mut resolver = Resolver { servers: vec![], search: vec![], dots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    resolver.servers.extend(server.map(|server| SocketAddr::from((server, PORT))));
                }
                Some("search" | "domain") => {
                    // A dot alone stands for none.
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

    /// The names to ask for, in turn.
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

    /// The SRV records of a name.
    ///
    /// # Errors
    /// Of the last server that was asked; `NotFound` if there are none.
    pub(super) async fn services(&self, name: &str) -> io::Result<Vec<Service>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no DNS server is known");
        for name in self.names(name) {
            // A completed name may be too long.
            let Some(question) = question(rand::random(), &name) else {
                last = io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a DNS name"));
                continue;
            };
            for server in &self.servers {
                match ask(*server, &question).await {
                    Ok(services) if !services.is_empty() => return Ok(services),
                    Ok(_) => last = io::Error::new(io::ErrorKind::NotFound, format!("{name} has no SRV records")),
                    Err(error) => last = io::Error::new(error.kind(), format!("{name} at {server}: {error}")),
                }
            }
        }
        Err(last)
    }
}

async fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Vec<Service>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let answer = match timeout(ANSWER, over_udp(server, question)).await.map_err(late)?? {
        answer if is_cut(&answer) => timeout(ANSWER, over_tcp(server, question)).await.map_err(late)??,
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
        // Others may send to this port, too.
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

/// A question for the SRV records of a name. `None` if it is no name.
fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // One question, recursion desired.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LABEL).contains(&usize::from(*length)))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(SRV.to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    (name.len() < NAME).then_some(message)
}

const HEADER: usize = 12;

fn is_cut(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// What follows the question, if the message is an answer to it.
fn answers(message: &[u8], question: &[u8]) -> Option<usize> {
    let asked = question.get(HEADER..)?;
    let is_answer = message.get(2)? & 0x80 != 0 && message.get(..2)? == question.get(..2)?;
    let repeated = message.get(HEADER..HEADER + asked.len())?;
    (is_answer && message.get(4..6)? == [0, 1] && repeated.eq_ignore_ascii_case(asked)).then_some(HEADER + asked.len())
}

/// The services in an answer to a question.
fn read(message: &[u8], question: &[u8]) -> Result<Vec<Service>, AnswerError> {
    let mut at = answers(message, question).ok_or(AnswerError::Other)?;
    match message.get(3).map_or(0, |flags| flags & 0x0f) {
        0 => {}
        3 => return Err(AnswerError::NoName),
        code => return Err(AnswerError::Code(code)),
    }
    let count = number(message, 6).ok_or(AnswerError::Malformed)?;
    let mut services = Vec::new();
    for _ in 0..usize::from(count).min(LONGEST) {
        let (service, next) = record(message, at).ok_or(AnswerError::Malformed)?;
        services.extend(service);
        at = next;
    }
    Ok(services)
}

/// The record that begins there, if it is a service, and where the next one begins. `None` if it is malformed.
fn record(message: &[u8], at: usize) -> Option<(Option<Service>, usize)> {
    let (_owner, at) = name(message, at)?;
    let (kind, class) = (number(message, at)?, number(message, at + 2)?);
    let data = at + 10;
    let end = data + usize::from(number(message, at + 8)?);
    message.get(data..end)?;
    if (kind, class) != (SRV, INTERNET) {
        return Some((None, end));
    }
    let port = number(message, data + 4)?;
    let (host, _) = name(message, data + 6)?;
    // The root stands for a service that is not available.
    let is_host = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let service = (!host.is_empty() && is_host(&host)).then_some(Service { host, port });
    Some((service, end))
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

/// The name that begins there, without a dot at its end, and what follows it.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut end = None;
    // What a name refers to begins before all of the name that was read.
    let mut before = at;
    loop {
        let length = *message.get(at)?;
        match usize::from(length) {
            0 => return Some((name, end.unwrap_or(at + 1))),
            length @ 1..=LABEL => {
                let label = message.get(at + 1..=at + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(*byte)));
                if name.chars().count() >= NAME {
                    return None;
                }
                at += 1 + length;
            }
            0xc0.. => {
                let to = usize::from(number(message, at)? & 0x3fff);
                if to >= before {
                    return None;
                }
                end = end.or(Some(at + 2));
                (before, at) = (to, to);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME_ASKED: &str = "_dist._tcp.app.internal";

    fn asked() -> Vec<u8> {
        question(7, NAME_ASKED).expect("a name")
    }

    /// An answer with records whose owner refers to the question and whose targets are `hosts`.
    fn answer(hosts: &[&[u8]], count: u16) -> Vec<u8> {
        let mut message = asked();
        message[2] |= 0x80;
        message[6..8].copy_from_slice(&count.to_be_bytes());
        for host in hosts {
            message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            message.extend(u16::try_from(host.len() + 6).expect("short").to_be_bytes());
            message.extend([0, 0, 0, 0, 0x23, 0x91]);
            message.extend(*host);
        }
        message
    }

    #[test]
    fn services_are_read_and_a_name_may_refer_to_what_stands_before_it() {
        // "pod-1" and then "app.internal" of the question.
        let message = answer(&[b"\x05pod-1\xc0\x17", b"\x05pod-2\x01x\x00", b"\x00"], 3);
        let service = |host: &str| Service { host: host.to_owned(), port: 9_105 };
        assert_eq!(read(&message, &asked()), Ok(vec![service("pod-1.app.internal"), service("pod-2.x")]));
    }

    #[test]
    fn names_in_circles_or_too_long_are_malformed() {
        let first = u8::try_from(asked().len() + 18).expect("short");
        for host in [&[0xc0, first][..], &[1, b'a', 0xc0, first], &[0xff, 0xff], &[0x80, 1], &[63, b'a']] {
            assert_eq!(read(&answer(&[host], 1), &asked()), Err(AnswerError::Malformed), "{host:?}");
        }
        let label: &[u8] = &[[63].as_slice(), &[b'a'; 63]].concat();
        let long = [label.repeat(4).as_slice(), &[0]].concat();
        assert_eq!(read(&answer(&[&long], 1), &asked()), Err(AnswerError::Malformed));
    }

    #[test]
    fn no_more_than_the_bound_is_taken_and_hosts_with_other_characters_are_left_out() {
        let hosts: Vec<&[u8]> = vec![b"\x01a\x00"; 1_000];
        assert_eq!(read(&answer(&hosts, 1_000), &asked()).map(|services| services.len()), Ok(LONGEST));
        assert_eq!(read(&answer(&[b"\x03a@b\x00", b"\x02a\n\x00"], 2), &asked()), Ok(vec![]));
    }

    #[test]
    fn answers_to_something_else_do_not_count() {
        let good = answer(&[b"\x01a\x00"], 1);
        for at in [0, 2, 4, 5, 13, 20] {
            let mut bad = good.clone();
            bad[at] ^= 0x81;
            assert_eq!(read(&bad, &asked()), Err(AnswerError::Other), "{at}");
        }
        assert_eq!(read(&[], &asked()), Err(AnswerError::Other));
        let mut missing = good;
        missing[3] |= 3;
        assert_eq!(read(&missing, &asked()), Err(AnswerError::NoName));
    }

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

    #[tokio::test]
    async fn search_domains_that_make_no_name_do_not_keep_the_others_from_being_asked() {
        // So systemd-resolved writes that there is none.
        assert_eq!(Resolver::read("search .\n").names("_dist._tcp.app"), ["_dist._tcp.app"]);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let servers = vec![socket.local_addr().expect("an address")];
        tokio::spawn(async move {
            let mut question = [0; 512];
            let (length, from) = socket.recv_from(&mut question).await.expect("asked");
            let mut answer = question[..length].to_vec();
            answer[2] |= 0x80;
            answer[7] = 1;
            answer.extend(b"\xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x09\0\0\0\0\x23\x91\x01a\0");
            socket.send_to(&answer, from).await.expect("sent");
        });
        let search = vec!["x".repeat(LABEL + 1), "internal".to_owned()];
        let resolver = Resolver { servers, search, dots: 5 };
        let found = resolver.services("_dist._tcp.app").await.expect("an answer");
        assert_eq!(found, [Service { host: "a".to_owned(), port: 9_105 }]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_follows_the_question_is_bounded(tail in prop::collection::vec(any::<u8>(), 0..600), count: u16) {
            let mut message = answer(&[], count);
            message.extend(tail);
            bounded(&message)?;
        }

        #[test]
        fn good_answers_with_wrong_bytes_are_bounded(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut message = answer(&[b"\x05pod-1\xc0\x17", b"\x05pod-2\xc0\x17", b"\x01a\x00"], 3);
            for (at, byte) in changes {
                let at = at.index(message.len());
                message[at] = byte;
            }
            bounded(&message)?;
        }
    }

    fn bounded(message: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(services) = read(message, &asked()) {
            prop_assert!(services.len() <= LONGEST);
            prop_assert!(services.iter().all(|service| (1..NAME).contains(&service.host.len())));
        }
        Ok(())
    }
}
