//! Distribution over TLS with real BEAMs, in both directions, and with short names.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::certificates;
use crate::support::{self, LOOPBACK, Node, Otp, Process, node_name_at, otps};
use rust_node::distribution::tls::{Tls, TlsFiles};
use rust_node::distribution::{Limits, Node as Dist, NodeOptions};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// A directory with an authority, and a certificate of its for `localhost` and `::1`.
pub struct Certificates {
    directory: TempDir,
    /// A BEAM of this OTP can see the directory, at `seen`.
    otp: Otp,
    seen: PathBuf,
    beam_flags: String,
}

impl Certificates {
    pub fn new(otp: Otp) -> Certificates {
        let root = Path::new(otp.root.unwrap_or("/"));
        let directory = tempfile::tempdir_in(root.join("tmp")).expect("a directory");
        let seen = Path::new("/").join(directory.path().strip_prefix(root).expect("below the root"));
        let beam_flags = certificates::write(directory.path(), &seen).expect("written");
        // The other OTP's root may have no /etc/hosts.
        let hosts = "{host,{127,0,0,1},[\"localhost\"]}.\n{lookup,[file,native]}.\n";
        std::fs::write(directory.path().join("inetrc"), hosts).expect("written");
        Certificates { directory, otp, seen, beam_flags }
    }

    /// A file as the Rust node sees it.
    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn node_flags(&self) -> Vec<String> {
        let flags = [("--tls-ca", "ca.pem"), ("--tls-certificate", "cert.pem"), ("--tls-key", "key.pem")];
        flags.iter().flat_map(|(flag, name)| [(*flag).to_owned(), self.file(name).display().to_string()]).collect()
    }

    /// What a BEAM with these certificates is started with: the variable `ERL_INETRC`, and flags of `erl`.
    fn beam(&self, driver: &str) -> (String, String) {
        let hosts = self.seen.join("inetrc").display().to_string();
        (hosts, format!("-proto_dist {driver} {}", self.beam_flags))
    }

    /// A BEAM that waits to be connected over TLS.
    pub fn waiting(&self, name: &str, driver: &str) -> Process {
        let (hosts, erl) = self.beam(driver);
        self.otp.waiting(name, &[("ERL_INETRC", &hosts)], &["--erl", &erl])
    }

    /// A Rust node over TLS.
    fn node(&self, host: IpAddr, name: &str, more: &[&str]) -> Node {
        let flags = self.node_flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Node::listening(&node_name_at("rust", name), &SocketAddr::from((host, 0)).to_string(), &flags)
    }
}

#[tokio::test]
async fn a_beam_is_dialled_and_dials_over_tls() {
    both_ways("inet_tls", hosts()[0]).await;
}

#[tokio::test]
async fn a_beam_at_an_ipv6_address_is_dialled_and_dials_over_tls() {
    both_ways("inet6_tls", hosts()[1]).await;
}

async fn both_ways(driver: &str, (host, name): (IpAddr, &str)) {
    for otp in otps() {
        let certificates = Certificates::new(otp);
        let beam_name = node_name_at("beam", name);
        let _beam = certificates.waiting(&beam_name, driver);
        let node = certificates.node(host, name, &["--connect", &beam_name]);
        node.connected(1.0).await;
        let (hosts, erl) = certificates.beam(driver);
        otp.asks(name, &node, &[("ERL_INETRC", &hosts)], &["--erl", &erl]);
    }
}

#[tokio::test]
async fn a_peer_without_tls_is_not_let_in() {
    for (host, name) in hosts() {
        let certificates = Certificates::new(otps()[0]);
        let mut node = certificates.node(host, name, &[]);
        // On a busy machine the handshake may run out of time instead.
        support::eventually("one was refused", async || {
            let plain = support::Peer::connect_as(&node, &node_name_at("peer", name), support::COOKIE).await;
            assert!(plain.is_err());
            node.metric("handshakes_total{kind=\"io\"}").await > 0.0
        })
        .await;
        assert!(node.is_alive());
    }
}

/// Each with a host that the certificate names.
fn hosts() -> [(IpAddr, &'static str); 2] {
    [(LOOPBACK[0], "localhost"), (LOOPBACK[1], "::1")]
}

#[tokio::test]
async fn records_of_tls_that_are_wrong_too_long_or_never_end() {
    for (host, name) in hosts() {
        let certificates = Certificates::new(otps()[0]);
        let mut node = certificates.node(host, name, &[]);
        // A record longer than there are, an alert, a greeting of zeros, and the beginning of one.
        let greeting = [&[0x16, 3, 1, 0, 8, 1, 0, 0, 4][..], &[0; 4]].concat();
        for bytes in [&[0x16, 3, 3, 0xff, 0xff][..], &[0x15, 3, 3, 0, 2, 2, 80], &greeting, &[0x16, 3, 1, 2, 0, 1]] {
            let mut stream = node.dial().await;
            stream.write_all(bytes).await.expect("sent");
            support::closed(stream).await;
        }
        let ended = async |kind: &str| node.metric(&format!("handshakes_total{{kind=\"{kind}\"}}")).await;
        support::eventually("each was turned away", async || ended("io").await + ended("timeout").await >= 4.0).await;
        assert!(node.is_alive());
        let known = stranger(&certificates, &certificates, name);
        // It may run out of time on a busy machine.
        support::eventually("one with a certificate is let in", async || {
            support::dial(&known, &address(&node)).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_peer_without_a_certificate_of_the_authority_is_not_let_in() {
    for (host, name) in hosts() {
        let certificates = Certificates::new(otps()[0]);
        let mut node = certificates.node(host, name, &[]);
        let stranger = stranger(&certificates, &Certificates::new(otps()[0]), name);
        // On a busy machine the handshake may run out of time instead.
        support::eventually("one was refused", async || {
            assert!(support::dial(&stranger, &address(&node)).await.is_err(), "another authority's certificate");
            node.metric("handshakes_total{kind=\"io\"}").await > 0.0
        })
        .await;
        assert!(node.is_alive());
    }
}

#[tokio::test]
async fn certificates_that_are_renewed_are_used_and_those_that_cannot_be_used_are_not() {
    let (host, name) = hosts()[0];
    let certificates = Certificates::new(otps()[0]);
    let node = certificates.node(host, name, &[]);
    let renewed = Certificates::new(otps()[0]);
    let dial = async || support::dial(&stranger(&renewed, &renewed, name), &address(&node)).await;
    assert!(dial().await.is_err(), "another authority");
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::copy(renewed.file(file), certificates.file(file)).expect("copied");
    }
    // It may run out of time on a busy machine.
    support::eventually("the new authority counts", async || dial().await.is_ok()).await;
    std::fs::write(certificates.file("cert.pem"), "half a certificate").expect("written");
    support::eventually("the files before stay in use", async || dial().await.is_ok()).await;
}

/// The node's name with its port, in front of which an IPv6 address has brackets.
fn address(node: &Node) -> String {
    format!("{}:{}", node.name.replace("::1", "[::1]"), node.port)
}

/// A node that trusts one authority and has a certificate of another, or the same.
fn stranger(authority: &Certificates, own: &Certificates, host: &str) -> Dist {
    let files = TlsFiles { ca: authority.file("ca.pem"), certificate: own.file("cert.pem"), key: own.file("key.pem") };
    let local = support::local(&node_name_at("look", host), support::COOKIE);
    let limits = Limits { handshake_timeout: support::SOON, ..Limits::default() };
    let tls = Some(Tls::load(&files).expect("they go together"));
    Dist::new(NodeOptions { tls, ..NodeOptions::new(local, limits) })
}
