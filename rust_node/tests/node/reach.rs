//! Connects to real BEAMs, in both directions, without EPMD or without IPv4.

use crate::support::{Node, node_name_at, otps, unused_port};

/// Gives each BEAM an address of its own: without EPMD, all nodes of a cluster listen on the same port.
fn without_epmd(address: &str, port: u16) -> String {
    let address = address.replace('.', ",");
    format!("-start_epmd false -erl_epmd_port {port} -kernel inet_dist_use_interface {{{address}}}")
}

fn over_ipv6_without_epmd(port: u16) -> String {
    format!("-proto_dist inet6_tcp -start_epmd false -erl_epmd_port {port}")
}

#[tokio::test]
async fn a_cluster_without_epmd_connects() {
    for otp in otps() {
        let (_held, port) = unused_port();
        let beam_name = node_name_at("beam", "127.0.0.1");
        let _beam = otp.waiting(&beam_name, &[], &["--erl", &without_epmd("127.0.0.1", port)]);
        let (listen, port_text) = (format!("127.0.0.2:{port}"), port.to_string());
        let name = node_name_at("rust", "127.0.0.2");
        // No EPMD listens on this port.
        let (_held, no_epmd) = unused_port();
        let no_epmd = no_epmd.to_string();
        let flags = ["--connect", &beam_name, "--dist-port", &port_text, "--epmd-port", &no_epmd];
        let node = Node::listening(&name, &listen, &flags);
        node.connected(1.0).await;
        assert!(node.get("/readyz").await.starts_with("HTTP/1.1 200"));
        otp.asks("127.0.0.3", &node, &[], &["--erl", &without_epmd("127.0.0.3", port)]);
    }
}

#[tokio::test]
async fn a_node_with_a_fixed_port_connects_beside_nodes_in_epmd() {
    for otp in otps() {
        let (_held, port) = unused_port();
        let fixed = node_name_at("beam", "127.0.0.1");
        let _fixed = otp.waiting(&fixed, &[], &["--erl", &without_epmd("127.0.0.1", port)]);
        let registered = node_name_at("beam", "127.0.0.1");
        let _registered = otp.waiting(&registered, &[], &[]);
        let node = Node::start(&["--connect", &format!("{fixed}:{port},{registered}")]);
        node.connected(2.0).await;
    }
}

#[tokio::test]
async fn a_cluster_with_ipv6_only_connects() {
    for otp in otps() {
        let erl = "-proto_dist inet6_tcp";
        let (first, second) = (node_name_at("beam", "::1"), node_name_at("beam", "::1"));
        let _first = otp.waiting(&first, &[], &["--erl", erl]);
        let _second = otp.waiting(&second, &[("OTHER", &first)], &["--erl", erl]);
        let node = Node::listening(&node_name_at("rust", "::1"), "[::1]:0", &["--connect", &first]);
        // Only the first node knows the second one.
        node.connected(2.0).await;
        otp.asks("::1", &node, &[], &["--erl", erl]);
    }
}

#[tokio::test]
async fn a_node_at_an_ipv6_address_with_a_fixed_port_connects() {
    for otp in otps() {
        let (_held, port) = unused_port();
        let name = node_name_at("beam", "::1");
        let _beam = otp.waiting(&name, &[], &["--erl", &over_ipv6_without_epmd(port)]);
        let node = Node::start(&["--connect", &format!("{}:{port}", name.replace("::1", "[::1]"))]);
        node.connected(1.0).await;
    }
}

#[tokio::test]
async fn a_node_found_at_an_ipv6_address_is_named_by_that_address() {
    let (_held, port) = unused_port();
    let name = node_name_at("beam", "::1");
    let _beam = otps()[0].waiting(&name, &[], &["--erl", &over_ipv6_without_epmd(port)]);
    // DNS and Fly.io write the long form; the BEAM has the short one.
    let spelt = name.replace("::1", "[0:0:0:0:0:0:0:1]");
    let node = Node::start(&["--connect-dns", &format!("{spelt}:{port}")]);
    node.connected(1.0).await;
}
