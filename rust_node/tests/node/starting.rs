//! A node that starts with a low limit of open files, or is told to stop at once.

use std::process::Command;

use crate::support::{BINARY, COOKIE, Node, Process, SOON, node_name, program, text};
use tokio::net::TcpListener;

/// The program with a limit of open files: soft, hard or both.
fn under(limit: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\""), BINARY]);
    command
}

/// Starts a node with a limit of open files.
fn limited(limit: &str) -> Node {
    Node::from(under(limit), &node_name("rust"), "127.0.0.1:0", &[])
}

#[tokio::test]
async fn a_low_soft_limit_of_open_files_is_raised_to_what_the_node_needs() {
    let node = limited("-Sn 64");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.process.child.id())).expect("it runs");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("listed");
    let soft = files.split_whitespace().next().and_then(|soft| soft.parse::<u64>().ok()).expect("a number");
    assert!(soft > 64, "{files}");
}

#[tokio::test]
async fn a_hard_limit_below_what_the_node_needs_is_in_the_log_and_the_node_serves() {
    let mut node = limited("-n 64");
    assert!(node.get("/readyz").await.starts_with("HTTP/1.1 200"));
    node.process.signal("-TERM");
    assert_eq!(node.process.exit_code(), Some(0));
    let lines = node.process.every_line();
    assert!(lines.iter().any(|line| line.contains(" WARN ") && line.contains("limit=64")), "{lines:?}");
}

#[tokio::test]
async fn a_command_that_dials_more_nodes_than_the_soft_limit_of_open_files_raises_it() {
    for name in ["nodes", "doctor"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // Ends the connections when all have dialled.
        tokio::spawn(async move {
            let mut held = Vec::new();
            while held.len() < 100 {
                held.push(listener.accept().await.expect("dialled"));
            }
        });
        let nodes: Vec<String> = (0..100).map(|number| format!("n{number}@127.0.0.1:{port}")).collect();
        let mut command = under("-Sn 64");
        command.args([name, "--json", "--connect", &nodes.join(",")]).env("DURABLE_HANDOFF_COOKIE", COOKIE);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(SOON, output).await.expect("it ends").expect("it runs");
        let written = text(&output.stdout) + &text(&output.stderr);
        assert!(written.contains("n99@127.0.0.1") && !written.contains("os error 24"), "{written}");
    }
}

#[tokio::test]
async fn a_node_that_waits_for_epmd_stops_when_it_is_told_to() {
    let epmd = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = epmd.local_addr().expect("an address").port().to_string();
    let name = node_name("rust");
    let arguments = ["run", "--name", &name, "--listen", "127.0.0.1:0", "--epmd-port", &port];
    let mut process = Process::spawn(&mut program(&arguments));
    let _silent = epmd.accept().await.expect("asked");
    process.signal("-TERM");
    assert_eq!(process.exit_code(), Some(0), "{:?}", process.every_line());
}
