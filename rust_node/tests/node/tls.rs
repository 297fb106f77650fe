//! Distribution over TLS with real BEAMs, in both directions, and with short names.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::support::{self, LOOPBACK, Node, Otp, node_name_at, otps};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rust_node::distribution::tls::{Tls, TlsFiles};
use rust_node::distribution::{Limits, Node as Dist, NodeOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const WAIT: &str = include_str!("beam/wait.exs");
const ASK: &str = include_str!("beam/ask.exs");

/// An authority, and a certificate of its for `localhost` and `::1`, in a new directory.
pub fn certificates(directory: &Path) {
    let mut ca = CertificateParams::new(vec![]).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "test authority");
    let ca_key = KeyPair::generate().expect("a key");
    let ca_certificate = ca.self_signed(&ca_key).expect("signed");
    let issuer = Issuer::new(ca, ca_key);
    let mut own = CertificateParams::new(vec!["localhost".to_owned(), "::1".to_owned()]).expect("parameters");
    // A BEAM that dials compares the text of the address with names, never with addresses.
    own.subject_alt_names.push(SanType::DnsName("::1".try_into().expect("text")));
    own.distinguished_name.push(DnType::CommonName, "localhost");
    own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let certificate = own.signed_by(&key, &issuer).expect("signed");
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).expect("written");
    write("ca.pem", ca_certificate.pem());
    write("cert.pem", certificate.pem());
    write("key.pem", key.serialize_pem());
}

/// A directory that a BEAM of that OTP can see, and its path as that BEAM sees it.
pub fn directory(otp: Otp) -> (tempfile::TempDir, PathBuf) {
    let root = PathBuf::from(otp.root.unwrap_or("/"));
    let directory = tempfile::tempdir_in(root.join("tmp")).expect("a directory");
    let seen = Path::new("/").join(directory.path().strip_prefix(&root).expect("below the root"));
    (directory, seen)
}

pub fn beam_flags(directory: &Path, seen: &Path, driver: &str) -> String {
    let seen = seen.display();
    let options = format!(
        "{{cacertfile,\"{seen}/ca.pem\"}},{{certfile,\"{seen}/cert.pem\"}},{{keyfile,\"{seen}/key.pem\"}},{{verify,verify_peer}}"
    );
    let file = format!("[{{server,[{options},{{fail_if_no_peer_cert,true}}]}},{{client,[{options}]}}].\n");
    std::fs::write(directory.join("ssl.conf"), file).expect("written");
    // The other OTP's root may have no /etc/hosts.
    let hosts = "{host,{127,0,0,1},[\"localhost\"]}.\n{lookup,[file,native]}.\n";
    std::fs::write(directory.join("inetrc"), hosts).expect("written");
    format!("-proto_dist {driver} -ssl_dist_optfile {seen}/ssl.conf")
}

pub fn node_flags(directory: &Path) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let flags = [("--tls-ca", "ca.pem"), ("--tls-certificate", "cert.pem"), ("--tls-key", "key.pem")];
    flags.iter().flat_map(|(flag, name)| [(*flag).to_owned(), file(name)]).collect()
}

#[tokio::test]
async fn a_beam_is_dialled_and_dials_over_tls() {
    both_ways("inet_tls", "localhost", "127.0.0.1:0").await;
}

#[tokio::test]
async fn a_beam_at_an_ipv6_address_is_dialled_and_dials_over_tls() {
    both_ways("inet6_tls", "::1", "[::1]:0").await;
}

async fn both_ways(driver: &str, host: &str, listen: &str) {
    for otp in otps() {
        let (directory, seen) = directory(otp);
        certificates(directory.path());
        let erl = beam_flags(directory.path(), &seen, driver);
        let beam_name = node_name_at("beam", host);
        let hosts = seen.join("inetrc").display().to_string();
        let mut beam = otp.run(&beam_name, WAIT, &[("ERL_INETRC", &hosts)], &["--erl", &erl]);
        beam.line("up");
        let mut flags = node_flags(directory.path());
        flags.extend(["--connect".to_owned(), beam_name]);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let node = Node::listening(&node_name_at("rust", host), listen, &flags);
        node.counted("durable_handoff_connections", 1.0).await;
        let environment = [("RUST", &*node.name), ("ERL_INETRC", &hosts)];
        let mut asking = otp.run(&node_name_at("beam", host), ASK, &environment, &["--erl", &erl]);
        asking.line("all asked");
    }
}

#[tokio::test]
async fn a_peer_without_tls_is_not_let_in() {
    for (host, name) in hosts() {
        let (directory, _) = directory(otps()[0]);
        certificates(directory.path());
        let mut node = node_over_tls(host, name, directory.path());
        let plain = support::Peer::connect_as(&node, &node_name_at("peer", name), support::COOKIE).await;
        assert!(plain.is_err());
        node.counted("durable_handoff_handshakes_total{kind=\"io\"}", 1.0).await;
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
        let (directory, _) = directory(otps()[0]);
        certificates(directory.path());
        let mut node = node_over_tls(host, name, directory.path());
        // A record longer than there are, an alert, a greeting of zeros, and the beginning of one.
        let greeting = [&[0x16, 3, 1, 0, 8, 1, 0, 0, 4][..], &[0; 4]].concat();
        for bytes in [&[0x16, 3, 3, 0xff, 0xff][..], &[0x15, 3, 3, 0, 2, 2, 80], &greeting, &[0x16, 3, 1, 2, 0, 1]] {
            let mut stream = TcpStream::connect((host, node.port)).await.expect("accepted");
            stream.write_all(bytes).await.expect("sent");
            let _ended =
                tokio::time::timeout(support::SOON, stream.read_to_end(&mut Vec::new())).await.expect("closed");
        }
        let ended =
            async |kind: &str| node.metric(&format!("durable_handoff_handshakes_total{{kind=\"{kind}\"}}")).await;
        support::eventually("each was turned away", async || ended("io").await + ended("timeout").await >= 4.0).await;
        assert!(node.is_alive());
        let known = stranger(directory.path(), directory.path(), name);
        // It may run out of time on a busy machine.
        support::eventually("one with a certificate is let in", async || {
            support::dial(&known, &format!("{}:{}", bracketed(&node.name), node.port)).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_peer_without_a_certificate_of_the_authority_is_not_let_in() {
    for (host, name) in hosts() {
        let (directory, _) = directory(otps()[0]);
        certificates(directory.path());
        let mut node = node_over_tls(host, name, directory.path());
        let (other, _) = self::directory(otps()[0]);
        certificates(other.path());
        let stranger = stranger(directory.path(), other.path(), name);
        let refused = support::dial(&stranger, &format!("{}:{}", bracketed(&node.name), node.port)).await;
        assert!(refused.is_err(), "another authority's certificate");
        node.counted("durable_handoff_handshakes_total{kind=\"io\"}", 1.0).await;
        assert!(node.is_alive());
    }
}

#[tokio::test]
async fn certificates_that_are_renewed_are_used_and_those_that_cannot_be_used_are_not() {
    let (host, name) = hosts()[0];
    let (directory, _) = directory(otps()[0]);
    certificates(directory.path());
    let node = node_over_tls(host, name, directory.path());
    let (renewed, _) = self::directory(otps()[0]);
    certificates(renewed.path());
    let at = format!("{}:{}", bracketed(&node.name), node.port);
    let dial = async || support::dial(&stranger(renewed.path(), renewed.path(), name), &at).await;
    assert!(dial().await.is_err(), "another authority");
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::copy(renewed.path().join(file), directory.path().join(file)).expect("copied");
    }
    // It may run out of time on a busy machine.
    support::eventually("the new authority counts", async || dial().await.is_ok()).await;
    std::fs::write(directory.path().join("cert.pem"), "half a certificate").expect("written");
    support::eventually("the files before stay in use", async || dial().await.is_ok()).await;
}

/// The name as it is written before a port.
fn bracketed(name: &str) -> String {
    name.replace("::1", "[::1]")
}

/// A node that trusts one authority and has a certificate of another, or the same.
fn stranger(authority: &Path, own: &Path, host: &str) -> Dist {
    let files = TlsFiles { ca: authority.join("ca.pem"), certificate: own.join("cert.pem"), key: own.join("key.pem") };
    let local = support::local(&node_name_at("look", host), support::COOKIE);
    let limits = Limits { handshake_timeout: support::SOON, ..Limits::default() };
    let tls = Some(Tls::load(&files).expect("they go together"));
    Dist::new(NodeOptions { tls, ..NodeOptions::new(local, limits) })
}

fn node_over_tls(host: IpAddr, name: &str, directory: &Path) -> Node {
    let flags = node_flags(directory);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Node::listening(&node_name_at("rust", name), &SocketAddr::from((host, 0)).to_string(), &flags)
}
