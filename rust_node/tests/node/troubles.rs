//! Nodes that cannot be reached: each cause is logged once, and `status`, `/readyz`, the metric, `nodes` and
//! `doctor` report the same cause.

use crate::support::{
    self, COOKIE, LATE, Node, again_while, ended, eventually, node_name, node_name_at, otps, unused_port,
};
use crate::tls::Certificates;
use serde_json::Value;

fn unreachable(cause: &str) -> String {
    format!("unreachable{{kind=\"{cause}\"}}")
}

/// A node whose dials have failed several times for this cause and that has logged it.
async fn failing(cause: &str, flags: &[&str], peer: &str, host: (&str, &str)) {
    let flags = [flags, &["--connect", peer]].concat();
    let mut node = Node::listening(&node_name_at("rust", host.0), host.1, &flags);
    node.counted(&unreachable(cause), 1.0).await;
    let status = async || node.json("/status").await["unreachable"][0].clone();
    // On a slow machine the handshake may time out in between, which is another cause.
    let again = async || {
        let said = status().await;
        said["cause"] == cause && said["times"].as_u64() >= Some(3)
    };
    eventually("it failed again", again).await;
    let said = status().await;
    assert_eq!(said["name"], peer, "{said}");
    assert!(said["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{said}");
    let probe = async || node.get("/readyz").await;
    let line = format!("\n{peer}: {cause}: ");
    eventually("a probe is told", async || probe().await.contains(&line)).await;
    assert!(probe().await.starts_with("HTTP/1.1 503"));
    node.process.signal("-TERM");
    assert_eq!(node.process.exit_code(), Some(0));
    let warnings: Vec<&String> = node.process.every_line().iter().filter(|line| line.contains(" WARN ")).collect();
    let of_it = format!("peer=\"{peer}\" cause=\"{cause}\"");
    assert_eq!(warnings.iter().filter(|line| line.contains(&of_it)).count(), 1, "once: {warnings:?}");
}

const LOOPBACK: (&str, &str) = ("127.0.0.1", "127.0.0.1:0");
const LOCALHOST: (&str, &str) = ("localhost", "127.0.0.1:0");

#[tokio::test]
async fn a_beam_with_another_cookie_is_reported() {
    for otp in otps() {
        let beam = node_name("beam");
        let _beam = otp.waiting(&beam, &[], &["--cookie", "another-cookie"]);
        failing("cookie", &[], &beam, LOOPBACK).await;
        let listed = ended(3, &["nodes", "--connect", &beam]);
        assert!(listed.out.is_empty() && listed.err.contains("DURABLE_HANDOFF_COOKIE"), "{listed:?}");
        let row = &examined(&beam, 3)[0];
        assert_eq!(
            (&row["cause"], &row["flags"], &row["cookie"], &row["tick"]),
            (&"cookie".into(), &"ok".into(), &"failed".into(), &"skipped".into())
        );
    }
}

#[tokio::test]
async fn a_name_that_epmd_does_not_know_is_reported() {
    let beam = node_name("nowhere");
    failing("unknown_name", &[], &beam, LOOPBACK).await;
    let row = &examined(&beam, 3)[0];
    assert_eq!((&row["cause"], &row["dns"], &row["epmd"]), (&"unknown_name".into(), &"ok".into(), &"failed".into()));
}

#[tokio::test]
async fn a_missing_epmd_and_a_fixed_port_without_a_listener_are_reported() {
    let (_held, port) = unused_port();
    let port = port.to_string();
    let beam = node_name("nowhere");
    failing("epmd", &["--epmd-port", &port, "--register", "false"], &beam, LOOPBACK).await;
    failing("port", &["--dist-port", &port], &beam, LOOPBACK).await;
}

#[tokio::test]
async fn a_beam_with_a_certificate_of_another_authority_is_reported() {
    for otp in otps() {
        let beam = node_name_at("beam", "localhost");
        let other = Certificates::new(otp);
        let _beam = other.waiting(&beam, "inet_tls");
        let own = Certificates::new(otp);
        let flags = own.node_flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        failing("certificate", &flags, &beam, LOCALHOST).await;
    }
}

/// In the opposite case this node waits for an answer until the handshake times out.
#[tokio::test]
async fn a_beam_with_tls_is_reported_by_a_node_without_tls() {
    for otp in otps() {
        let beam = node_name_at("beam", "localhost");
        let certificates = Certificates::new(otp);
        let _beam = certificates.waiting(&beam, "inet_tls");
        failing("tls", &[], &beam, LOCALHOST).await;
    }
}

#[tokio::test]
async fn strangers_with_another_cookie_or_kind_of_name_are_reported() {
    let node = Node::start(&[]);
    let wrong = node_name("peer");
    assert!(support::Peer::connect_as(&node, &wrong, "another-cookie").await.is_err());
    node.counted(&unreachable("cookie"), 1.0).await;
    let short = node_name_at("peer", "localhost");
    assert!(support::Peer::connect_as(&node, &short, COOKIE).await.is_err());
    node.counted(&unreachable("name_kind"), 1.0).await;
    let probe = node.get("/readyz").await;
    assert!(probe.starts_with("HTTP/1.1 200") && probe.contains(&wrong) && probe.contains(&short), "{probe}");
    let _let_in = support::Peer::connect_as(&node, &wrong, COOKIE).await.expect("let in");
    eventually("it is no trouble any more", async || node.metric(&unreachable("cookie")).await < 1.0).await;
}

#[tokio::test]
async fn the_doctor_marks_each_step_that_works_and_each_that_fails() {
    for otp in otps() {
        let (good, hasty) = (node_name("beam"), node_name("beam"));
        let _good = otp.waiting(&good, &[], &[]);
        let _hasty = otp.waiting(&hasty, &[], &["--erl", "-kernel net_ticktime 1"]);
        let rows = examined(&good, 0);
        let steps = ["dns", "epmd", "connect", "handshake", "flags", "cookie", "tick"];
        assert!(steps.iter().all(|step| rows[0][step] == "ok"), "{rows:?}");
        let rows = examined(&format!("{good},{hasty}"), 3);
        assert_eq!((&rows[0]["cause"], &rows[0]["tick"]), (&Value::Null, &"ok".into()), "{rows:?}");
        assert_eq!((&rows[1]["cause"], &rows[1]["tick"]), (&"tick_time".into(), &"failed".into()), "{rows:?}");
    }
}

/// The rows of `doctor`, which must exit with that code. It runs again when a node was late.
fn examined(connect: &str, code: i32) -> Vec<Value> {
    let rows = || ended(code, &["doctor", "--json", "--connect", connect]).json().as_array().expect("a list").clone();
    let is_late = |row: &Value| row["error"].as_str().is_some_and(|error| error.contains(LATE));
    again_while(rows, |rows| rows.iter().any(is_late))
}
