//! Nodes found in DNS and EPMD, with a DNS server whose answers each test chooses.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::support::{LOOPBACK, Node, SOON, ended, node_name, otps, program, unused_port};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// Builds the answers of a server from the question, one for UDP and one for TCP. `None` sends no answer.
type Answers = (fn(&[u8], u16) -> Option<Vec<u8>>, fn(&[u8], u16) -> Option<Vec<u8>>);

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

/// A DNS server that gives these answers until the test ends. `port` is the port in the SRV records.
async fn server(address: IpAddr, (udp, tcp): Answers, port: u16) -> SocketAddr {
    let (socket, listener) = sockets(address).await;
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            if let Some(answer) = udp(&question[..length], port) {
                socket.send_to(&answer, from).await.expect("sent");
            }
        }
    });
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut question = vec![0; usize::from(stream.read_u16().await.expect("asked"))];
            stream.read_exact(&mut question).await.expect("asked");
            if let Some(answer) = tcp(&question, port) {
                let length = u16::try_from(answer.len()).expect("short").to_be_bytes();
                // The client may have read enough and closed the connection.
                let _closed = stream.write_all(&[&length, &*answer].concat()).await;
            }
            held.push(stream);
        }
    });
    address
}

/// An answer with these flags, this number of records, and these records.
fn answer(question: &[u8], flags: [u8; 2], count: u16, records: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&flags);
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message.extend(records.concat());
    Some(message)
}

const GOOD: [u8; 2] = [0x81, 0x80];
const CUT: [u8; 2] = [0x83, 0x80];

fn record(host: &[u8], port: u16) -> Vec<u8> {
    let mut record = vec![0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60];
    record.extend(u16::try_from(host.len() + 6).expect("short").to_be_bytes());
    record.extend([0, 0, 0, 0]);
    record.extend(port.to_be_bytes());
    record.extend(host);
    record
}

/// `127.0.a.b` as a name.
fn loopback(a: u8, b: u8) -> Vec<u8> {
    let labels = ["127".to_owned(), "0".to_owned(), a.to_string(), b.to_string()];
    let label = |label: &String| [&[u8::try_from(label.len()).expect("short")], label.as_bytes()].concat();
    [labels.iter().map(label).collect::<Vec<_>>().concat(), vec![0]].concat()
}

fn cut(question: &[u8], _port: u16) -> Option<Vec<u8>> {
    answer(question, CUT, 0, &[])
}

#[tokio::test]
async fn a_service_in_dns_gives_host_and_port_in_an_answer_too_long_for_udp() {
    for otp in otps() {
        let (_held, port) = unused_port();
        let beam = node_name("beam");
        let erl = format!("-start_epmd false -erl_epmd_port {port} -kernel inet_dist_use_interface {{127,0,0,1}}");
        let _beam = otp.waiting(&beam, &[], &["--erl", &erl]);
        let all = |question: &[u8], port: u16| answer(question, GOOD, 1, &[record(&loopback(0, 1), port)]);
        let dns = server(LOOPBACK[0], (cut, all), port).await.to_string();
        let wanted = beam.replace("127.0.0.1", "_dist._tcp.app.internal");
        let node = Node::start(&["--connect-dns", &wanted, "--dns-server", &dns]);
        node.connected(1.0).await;
        assert!(node.get("/nodes").await.contains(&beam), "named by its host");
    }
}

#[test]
fn a_command_dials_a_configured_node_at_the_port_that_dns_names() {
    let (_held, port) = unused_port();
    let beam = node_name("beam");
    let erl = format!("-start_epmd false -erl_epmd_port {port} -kernel inet_dist_use_interface {{127,0,0,1}}");
    let _beam = otps()[0].waiting(&beam, &[], &["--erl", &erl]);
    let dns = format!("{}:{port}", beam.replace("127.0.0.1", "localhost"));
    // No EPMD listens on this port.
    let (_held, no_epmd) = unused_port();
    let flags = ["--connect", &beam, "--connect-dns", &dns, "--epmd-port", &no_epmd.to_string()];
    assert!(ended(0, &[&["nodes"], &flags[..]].concat()).out.contains(&beam));
}

#[tokio::test]
async fn nodes_of_several_base_names_are_found_at_one_address() {
    let release = format!("app{:08x}", rand::random::<u32>());
    let names = ["1", "2"].map(|of| format!("{release}-{of}@127.0.0.1"));
    let _beams = names.each_ref().map(|name| otps()[0].waiting(name, &[], &[]));
    let node = Node::start(&["--connect-dns", &format!("{release}-*@localhost"), "--discovery", "false"]);
    node.connected(2.0).await;
    let other = Node::start(&["--connect-dns", &format!("{release}-2*@localhost"), "--discovery", "false"]);
    other.connected(1.0).await;
    assert!(other.get("/nodes").await.contains(&names[1]));
}

fn nothing(_question: &[u8], _port: u16) -> Option<Vec<u8>> {
    None
}

#[tokio::test]
async fn a_hostile_dns_server_does_no_harm() {
    let circle = |question: &[u8], port: u16| {
        let target = u8::try_from(question.len() + 18).expect("short");
        answer(question, GOOD, 1, &[record(&[0xc0, target], port)])
    };
    let promised = |question: &[u8], _port: u16| answer(question, GOOD, u16::MAX, &[]);
    let other = |question: &[u8], port: u16| {
        let mut message = answer(question, GOOD, 1, &[record(&loopback(0, 1), port)])?;
        message[0] ^= 1;
        Some(message)
    };
    let strange = |question: &[u8], port: u16| answer(question, GOOD, 1, &[record(b"\x0da@127.0.0.1/x\x00", port)]);
    let zeros = |_question: &[u8], _port: u16| Some(vec![0; 65_535]);
    // Many records, each of another type, and a count that announces more.
    let addresses = |question: &[u8], _port: u16| {
        let record = b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01".to_vec();
        answer(question, GOOD, u16::MAX, &vec![record; 2_300])
    };
    // The owner has the longest name that DNS allows, and one label that is too long.
    let too_long = |question: &[u8], port: u16| {
        let labels =
            |last: u8| [[&[63][..], &[b'a'; 63]].concat().repeat(3), vec![last], vec![b'a'; last.into()]].concat();
        let host = |last: u8| [labels(last), vec![0]].concat();
        answer(question, GOOD, 2, &[record(&host(61), port), record(&host(62), port)])
    };
    let hostile: [(&str, Answers); 9] = [
        ("a name in a circle", (circle, nothing)),
        ("records that are not there", (promised, nothing)),
        ("an answer to another question", (other, nothing)),
        ("a host that is none", (strange, nothing)),
        ("zeros", (cut, zeros)),
        ("an answer that never comes", (cut, nothing)),
        ("a cut answer over TCP", (cut, |question, _port| Some(question[..20].to_vec()))),
        ("nothing but addresses", (cut, addresses)),
        ("a host longer than a name", (too_long, nothing)),
    ];
    for address in LOOPBACK {
        for (what, answers) in hostile {
            let rows = examined(server(address, answers, 1).await).await;
            assert_eq!((rows.len(), &rows[0]["cause"]), (1, &Value::from("dns")), "{what} at {address}: {rows:?}");
        }
    }
}

#[tokio::test]
async fn a_dns_server_that_names_too_many_nodes_does_no_harm() {
    let (_held, port) = unused_port();
    let many = |question: &[u8], port: u16| {
        let hosts = (1..=4).flat_map(|a| (1..=250).map(move |b| loopback(a, b)));
        let records: Vec<Vec<u8>> = hosts.map(|host| record(&host, port)).collect();
        answer(question, GOOD, 1_000, &records)
    };
    for address in LOOPBACK {
        let dns = server(address, (cut, many), port).await;
        let until = Instant::now() + SOON;
        let rows = loop {
            let rows = examined(dns).await;
            // On a busy machine this test's own server may answer late.
            if rows[0]["cause"] != "dns" || Instant::now() > until {
                break rows;
            }
        };
        assert_eq!(rows.len(), 256, "{rows:?}");
        assert!(rows.iter().all(|row| row["cause"] == "port"), "{rows:?}");
    }
}

/// A DNS server that answers only when both hosts are asked for.
async fn server_of_two(record: Vec<u8>) -> SocketAddr {
    let (socket, _listener) = sockets(LOOPBACK[0]).await;
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut question = [0; 512];
        let mut asked = [None, None];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            let question = &question[..length];
            let is_two = question.windows(3).any(|label| label == b"two");
            asked[usize::from(is_two)] = Some((question.to_vec(), from));
            if let [Some(one), Some(two)] = &asked {
                for (question, from) in [one, two] {
                    let answer = answer(question, GOOD, 1, std::slice::from_ref(&record)).expect("an answer");
                    socket.send_to(&answer, *from).await.expect("sent");
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn the_doctor_looks_up_all_hosts_at_the_same_time() {
    let (_held, port) = unused_port();
    let until = Instant::now() + SOON;
    let rows = loop {
        let dns = server_of_two(record(&loopback(0, 1), port)).await.to_string();
        let rows = diagnosed(&["a@_dist._tcp.one.internal", "b@_dist._tcp.two.internal"], &dns).await;
        // On a busy machine this test's own server may answer late.
        if rows.iter().all(|row| row["cause"] != "dns") || Instant::now() > until {
            break rows;
        }
    };
    let found: Vec<_> = rows.iter().map(|row| (row["node"].as_str(), row["cause"].as_str())).collect();
    assert_eq!(found, [(Some("a@127.0.0.1"), Some("port")), (Some("b@127.0.0.1"), Some("port"))], "{rows:?}");
}

/// The rows of `doctor` for the nodes that this server names.
async fn examined(dns: SocketAddr) -> Vec<Value> {
    diagnosed(&["app@_dist._tcp.app.internal"], &dns.to_string()).await
}

/// The rows of `doctor` for the nodes at these hosts, none of which it reaches.
async fn diagnosed(hosts: &[&str], dns: &str) -> Vec<Value> {
    let hosts = hosts.join(",");
    let arguments = ["doctor", "--json", "--connect-dns", &hosts, "--dns-server", dns];
    let output = tokio::process::Command::from(program(&arguments)).kill_on_drop(true).output();
    let output = tokio::time::timeout(SOON, output).await.expect("it ends").expect("it runs");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
