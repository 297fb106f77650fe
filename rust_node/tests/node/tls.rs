//! Distribution over TLS with real BEAMs, in both directions, and with short names.

use std::path::{Path, PathBuf};

use crate::support::{self, Node, Otp, node_name_at, otps};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

const WAIT: &str = include_str!("beam/wait.exs");
const ASK: &str = include_str!("beam/ask.exs");

fn short_name(prefix: &str) -> String {
    node_name_at(prefix, "localhost")
}

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
    let (directory, _) = directory(otps()[0]);
    certificates(directory.path());
    let mut node = node_over_tls(directory.path());
    let plain = support::Peer::connect_as(&node, &short_name("peer"), support::COOKIE).await;
    assert!(plain.is_err());
    node.counted("durable_handoff_handshakes_total{kind=\"io\"}", 1.0).await;
    assert!(node.is_alive());
}

#[tokio::test]
async fn a_peer_without_a_certificate_of_the_authority_is_not_let_in() {
    let (directory, _) = directory(otps()[0]);
    certificates(directory.path());
    let mut node = node_over_tls(directory.path());
    let (other, _) = self::directory(otps()[0]);
    certificates(other.path());
    let files = rust_node::distribution::tls::TlsFiles {
        ca: directory.path().join("ca.pem"),
        certificate: other.path().join("cert.pem"),
        key: other.path().join("key.pem"),
    };
    let dist = rust_node::distribution::Node::new(rust_node::distribution::NodeOptions {
        local: support::local(&short_name("look"), support::COOKIE),
        limits: rust_node::distribution::Limits {
            handshake_timeout: support::SOON,
            ..rust_node::distribution::Limits::default()
        },
        allow: rust_node::distribution::AllowList::default(),
        tls: Some(rust_node::distribution::tls::Tls::load(&files).expect("they go together")),
        epmd_port: 4369,
        dist_port: None,
        dns_server: None,
        metrics: rust_node::metrics::Metrics::default(),
    });
    let stranger = support::dial(&dist, &node.name).await;
    assert!(stranger.is_err(), "another authority's certificate");
    node.counted("durable_handoff_handshakes_total{kind=\"io\"}", 1.0).await;
    assert!(node.is_alive());
}

fn node_over_tls(directory: &Path) -> Node {
    let flags = node_flags(directory);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Node::start_as(&short_name("rust"), &flags)
}
