//! Flags, environment variables and settings files of the commands.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Instant;

use crate::support::{self, Node, SOON, ask, ended, text, unused_port};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(support::BINARY)
        .args(arguments)
        .env_remove("DURABLE_HANDOFF_COOKIE")
        .envs(environment.iter().copied())
        .output()
        .expect("it runs")
}

/// A file with that text, in a directory that is removed with the test.
fn written(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, text).expect("written");
    (directory, file.display().to_string())
}

#[test]
fn every_wrong_setting_is_named_and_the_exit_code_is_2() {
    let (_directory, file) = written("htpp = '127.0.0.1:1'\ntick_time_s = 1\n");
    let output = run(&["run", "--config", &file, "--connect", "nohost"], &[("DURABLE_HANDOFF_LOG_FORMAT", "xml")]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for expected in ["did you mean http?", "tick_time_s", "connect: ", "log_format", "cookie"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn one_mistake_gives_one_error() {
    for arguments in [&["run", "--connect", "nohost"][..], &["drain", "nohost"], &["run", "--listen", "nowhere"]] {
        let said = ended(2, arguments).err;
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn an_error_names_only_flags_that_the_command_has() {
    let said = |arguments: &[&str]| ended(2, arguments).err;
    for command in ["nodes", "doctor", "rebalance"] {
        assert!(!said(&[command]).contains("listen"), "{command} has no --listen");
    }
    assert!(said(&["run", "--connect", "a@127.0.0.1:1", "--log-level", "loud"]).contains("info"));
    assert!(said(&["status", "--http", "http://127.0.0.1:9464"]).contains("localhost:9464"));
}

#[test]
fn a_second_node_of_one_name_on_one_machine_is_told_so() {
    let first = Node::start(&[]);
    let said = ended(1, &["run", "--name", &first.name, "--listen", "127.0.0.1:0"]).err;
    let name = first.name.split('@').next().expect("a name");
    assert!(said.contains(name) && said.contains("another node"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn an_error_about_a_node_argument_does_not_name_a_setting() {
    let wrong = |arguments: &[&str]| text(&ask(arguments).stderr);
    for arguments in [
        &["cordon", "appx"][..],
        &["uncordon", "appx"],
        &["drain", "appx"],
        &["move", "appx", "key"],
        &["cordon", "app*@127.0.0.1"],
        &["drain", "a@h", "--name", "a@h"],
        &["drain", "a@h", "--name", "b@127.0.0.1"],
    ] {
        let said = wrong(arguments);
        assert!(said.contains(arguments[1]) && !said.contains("connect"), "{said}");
    }
    assert!(wrong(&["nodes", "--connect", "appx"]).contains("connect: node name \"appx\""));
}

#[test]
fn the_version_names_the_program() {
    let said = String::from_utf8(run(&["--version"], &[]).stdout).expect("text");
    assert_eq!(said.trim(), concat!("durable-handoff-node ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_of_commands_that_only_ask_lists_no_flags_of_run() {
    let flags = |command: &str| String::from_utf8(run(&[command, "--help"], &[]).stdout).expect("text");
    for of_run in ["--listen ", "--http ", "DURABLE_HANDOFF_NAME"] {
        assert!(flags("run").contains(of_run), "{of_run}");
        assert!(!flags("drain").contains(of_run) && !flags("nodes").contains(of_run), "{of_run}");
    }
    assert!(flags("nodes").contains("--connect ") && !flags("drain").contains("--connect "));
}

#[test]
fn a_command_does_not_take_the_name_of_the_node_that_its_file_is_for() {
    let (_directory, file) = written("name = 'rust'\nlisten = 'nowhere'\nconnect = 'a@127.0.0.1'\n");
    // Only settings of `run` are wrong in the file, so the command gets as far as connecting.
    ended(2, &["run", "--config", &file]);
    ended(3, &["drain", "nobody_here@127.0.0.1", "--config", &file]);
    ended(3, &["nodes", "--config", &file]);
}

#[test]
fn there_is_no_cookie_flag_on_the_command_line() {
    let output = run(&["run", "--connect", "a@127.0.0.1", "--cookie", "secret"], &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_cookie_file_that_others_can_read_is_refused() {
    let (_directory, file) = written("secret");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
    let output = run(&["run", "--connect", "a@127.0.0.1", "--cookie-file", &file], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("chmod 600") && !said.contains("secret"), "{said}");
}

#[test]
fn the_credential_of_the_unit_is_accepted_as_systemd_hands_it_over() {
    let (directory, file) = written("secret");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).expect("set");
    let credentials = directory.path().display().to_string();
    let of_unit = [("DURABLE_HANDOFF_COOKIE_FILE", &*file), ("CREDENTIALS_DIRECTORY", &*credentials)];
    let arguments = ["nodes", "--connect", "nobody_here@127.0.0.1"];
    assert_eq!(run(&arguments, &of_unit[..1]).status.code(), Some(2));
    let output = run(&arguments, &of_unit);
    assert_eq!(output.status.code(), Some(3), "the cookie is accepted: {output:?}");
}

#[test]
fn no_node_that_can_be_reached_is_exit_code_3() {
    ended(3, &["nodes", "--connect", "nobody_here@127.0.0.1"]);
}

#[tokio::test]
async fn the_cookie_is_in_no_log_line_and_in_no_argument() {
    let mut node = Node::start(&["--log-level", "trace"]);
    let arguments = std::fs::read(format!("/proc/{}/cmdline", node.process.child.id())).expect("it runs");
    assert!(!String::from_utf8_lossy(&arguments).contains(support::COOKIE));
    assert!(support::Peer::connect(&node).await.ping().await);
    node.process.signal("-TERM");
    assert_eq!(node.process.exit_code(), Some(0));
    let lines = node.process.every_line();
    assert!(lines.iter().any(|line| line.contains("stopped")), "to the end");
    assert!(lines.iter().all(|line| !line.contains(support::COOKIE)));
}

#[tokio::test]
async fn health_readiness_metrics_and_lists_are_served() {
    let node = Node::start(&["--log-format", "text"]);
    assert!(node.get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(node.get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(node.get("/metrics").await.contains("# TYPE durable_handoff_connections gauge"));
    assert!(node.get("/drains").await.ends_with("[]"));
    let peer = support::Peer::connect(&node).await;
    support::eventually("it is listed", async || node.get("/nodes").await.contains(&peer.name)).await;
}

#[tokio::test]
async fn metrics_are_open_metrics_for_those_who_accept_it_and_else_of_prometheus() {
    let node = Node::start(&[]);
    let plain = node.get("/metrics").await;
    assert!(plain.contains("content-type: text/plain; version=0.0.4") && !plain.contains("# EOF"), "{plain}");
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1\r\n";
    let open = node.get_with("/metrics", accept).await;
    assert!(open.contains("content-type: application/openmetrics-text") && open.ends_with("# EOF\n"), "{open}");
}

#[tokio::test]
async fn the_page_and_what_it_asks_for_are_served_with_headers_that_keep_other_pages_out() {
    let node = Node::start(&[]);
    for (path, kind) in [("/", "text/html"), ("/status", "application/json"), ("/metrics", "text"), ("/nowhere", "")] {
        let answer = node.get(path).await.to_ascii_lowercase();
        for header in ["x-content-type-options: nosniff", "x-frame-options: deny", "frame-ancestors 'none'", kind] {
            assert!(answer.contains(header), "{path}, {header}: {answer}");
        }
    }
    let status = node.json("/status").await;
    assert_eq!((&status["ended"], &status["refused"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[tokio::test]
async fn a_message_that_is_refused_is_in_the_status_with_its_reason() {
    let node = Node::start(&[]);
    let mut peer = support::Peer::connect(&node).await;
    let nonsense = etf::tuple([etf::atom("durable_handoff"), etf::uint(1), etf::atom("<b>nonsense</b>")]);
    peer.send_to("durable_handoff", &etf::encode(&nonsense).expect("encodes")).await.expect("sent");
    let mut status = serde_json::Value::Null;
    support::eventually("it is listed", async || {
        status = node.json("/status").await;
        status["refused"][0]["node"] == *peer.name
    })
    .await;
    assert!(status["refused"][0]["why"].as_str().expect("text").contains("<b>nonsense</b>"), "{status}");
}

#[tokio::test]
async fn a_node_that_reaches_nobody_is_not_ready() {
    let node = Node::start(&["--connect", "nobody_here@127.0.0.1"]);
    assert!(node.get("/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(node.get("/healthz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_node_that_only_hidden_nodes_reach_is_not_ready() {
    let node = Node::start(&["--connect", "nobody_here@127.0.0.1"]);
    let peer = support::Peer::connect(&node).await;
    support::eventually("it is listed", async || node.get("/nodes").await.contains(&peer.name)).await;
    let probe = node.get("/readyz").await;
    assert!(probe.starts_with("HTTP/1.1 503") && probe.contains("no node is connected"), "{probe}");
    assert!(node.get("/metrics").await.contains("durable_handoff_connections 0\n"));
}

#[test]
fn an_http_address_that_is_taken_is_named_and_the_exit_code_is_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let said = ended(1, &["run", "--connect", "nobody_here@127.0.0.1", "--http", &address]).err;
    assert!(said.contains(&format!("cannot serve HTTP on {address}: Address already in use")), "{said}");
}

#[test]
fn a_setting_is_taken_from_flag_then_variable_then_file() {
    let (_directory, file) = written("tick_time_s = 1\nlog_format = 'json'\nconnect = 'a@127.0.0.1'\nepmd_port = 0");
    // Each source has a different wrong value, so the error shows which source was used.
    let said = |arguments: &[&str], environment: &[(&str, &str)]| {
        let arguments: Vec<&str> = ["run", "--config", &file].into_iter().chain(arguments.iter().copied()).collect();
        String::from_utf8_lossy(&run(&arguments, environment).stderr).into_owned()
    };
    assert!(said(&[], &[]).contains("tick_time_s: got \"1\""));
    assert!(said(&[], &[("DURABLE_HANDOFF_TICK_TIME_S", "2")]).contains("tick_time_s: got \"2\""));
    let flag = said(&["--tick-time-s", "3"], &[("DURABLE_HANDOFF_TICK_TIME_S", "2")]);
    assert!(flag.contains("tick_time_s: got \"3\"") && flag.contains("epmd_port: got \"0\""), "{flag}");
}

/// Repeats the request while the coordinator or the answer is too slow.
fn status(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let until = Instant::now() + SOON;
    loop {
        let output = run(arguments, environment);
        let said = text(&output.stderr);
        let slow = said.contains("answers 503") || said.contains("no answer in time");
        if output.status.success() || !slow || Instant::now() >= until {
            assert!(output.status.success(), "{output:?}");
            return output;
        }
    }
}

#[tokio::test]
async fn a_running_node_says_what_it_coordinates() {
    let node = Node::start(&[]);
    let peer = support::Peer::connect(&node).await;
    let http = format!("127.0.0.1:{}", node.http);
    support::eventually("it is listed", async || node.get("/nodes").await.contains(&peer.name)).await;
    let table = status(&["status", "--http", &http], &[]);
    let said = text(&table.stdout);
    assert!(said.contains(&node.name) && said.contains("no drain"), "{table:?}");
    let json = status(&["status", "--json"], &[("DURABLE_HANDOFF_HTTP", &http)]);
    let status: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(status["nodes"][0]["name"], peer.name);
    assert_eq!(status["not_ready"], serde_json::Value::Null);
}

#[test]
fn the_status_of_a_node_that_does_not_run_is_exit_code_3() {
    let (_held, port) = unused_port();
    ended(3, &["status", "--http", &format!("127.0.0.1:{port}")]);
    ended(2, &["status", "--http", "nonsense"]);
}

#[test]
fn a_service_that_is_not_our_node_is_an_error_and_not_a_table() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("an address").to_string();
    let answering = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = other.accept().expect("asked");
        let _asked = stream.read(&mut [0; 4_096]).expect("read");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("answered");
    });
    ended(1, &["status", "--http", &address]);
    answering.join().expect("answered");
}

#[tokio::test]
async fn a_node_that_epmd_has_forgotten_is_not_ready_until_it_is_registered_again() {
    // The port stays reserved while EPMD is down. Otherwise the system could give it to a client as its
    // source port, and the client would connect to itself.
    let (_held, port) = unused_port();
    let port = port.to_string();
    let epmd = async || {
        let process = support::Process::spawn(Command::new("epmd").args(["-port", &port, "-address", "127.0.0.1"]));
        let address = format!("127.0.0.1:{port}");
        support::eventually("it listens", async || tokio::net::TcpStream::connect(&address).await.is_ok()).await;
        process
    };
    let first = epmd().await;
    let node = Node::start(&["--epmd-port", &port]);
    assert!(node.get("/readyz").await.starts_with("HTTP/1.1 200"));
    drop(first);
    support::eventually("it is not ready", async || node.get("/readyz").await.contains("not registered in EPMD")).await;
    let _second = epmd().await;
    support::eventually("it is ready", async || node.get("/readyz").await.starts_with("HTTP/1.1 200")).await;
}

#[test]
fn each_command_and_flag_in_the_documentation_exists() {
    let help = |command: &str| {
        let output = run(&[command, "--help"], &[]);
        assert!(output.status.success(), "no command {command}");
        text(&output.stdout)
    };
    let commands = ["run", "status", "nodes", "doctor", "drain", "cordon", "uncordon", "move", "rebalance", "audit"];
    let all_flags: String = commands.map(help).concat();
    let mut named = 0;
    for page in ["docs/guides/rust-node.md", "docs/guides/balance.md", "docs/guides/troubleshooting.md"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        let text = std::fs::read_to_string(path).expect("in the repository");
        // A fence contains other languages. A block of code is a line that begins with four spaces. Each second part
        // between backquotes is code.
        let text: String = text.split("```").step_by(2).collect();
        let blocks = text.lines().filter_map(|line| line.strip_prefix("    "));
        let spans = text.split('`').skip(1).step_by(2);
        for code in blocks.chain(spans) {
            let words: Vec<&str> = code.split(|c: char| c.is_whitespace() || "[]()".contains(c)).collect();
            let program = words.iter().position(|word| *word == "durable-handoff-node");
            let command = match program {
                Some(at) => words.get(at + 1).copied(),
                None => Some(words[0]).filter(|word| commands.contains(word)),
            };
            let help = match command {
                Some("COMMAND") | None if words[0].starts_with("--") => all_flags.clone(),
                Some("COMMAND") | None => continue,
                Some(command) => help(command),
            };
            for flag in words.iter().filter(|word| word.starts_with("--") && **word != "--help") {
                assert!(help.split_whitespace().any(|word| word == *flag), "{page}: {flag} in {code}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "{named}");
}
