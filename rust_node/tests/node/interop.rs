//! The node with real BEAMs: the OTP of this machine, and another one where it is installed.

use std::time::{Duration, Instant};

use crate::support::{self, Node, Otp, SOON, ask, dial, eventually, local, name, node_name, otps, program};
use etf::{atom, atom_name, tuple};
use rust_node::distribution::dialler::Dialler;
use rust_node::distribution::epmd::{self, PortMapperError};
use rust_node::distribution::{
    CallError, Inbound, Limits, Mailbox, MonitorRef, Node as Dist, NodeOptions, Process as Named,
};

const DRAIN: &str = include_str!("beam/drain.exs");
const AGENT: &str = "Elixir.DurableHandoff.Agent";

/// A distribution node inside the test, which connects to BEAMs.
fn dist(limits: Limits) -> Dist {
    let limits = Limits { handshake_timeout: SOON, ..limits };
    Dist::new(NodeOptions::new(local(&node_name("look"), support::COOKIE), limits))
}

/// Two BEAMs, the second connected to the first.
fn two_waiting(otp: Otp) -> [(String, support::Process); 2] {
    let (first, second) = (node_name("beam"), node_name("beam"));
    let one = otp.waiting(&first, &[], &[]);
    let two = otp.waiting(&second, &[("OTHER", &first)], &[]);
    [(first, one), (second, two)]
}

/// A BEAM that drains as soon as a Rust node is there.
fn draining(otp: Otp, mode: &str, count: &str, nodes: &str) -> (String, support::Process) {
    let name = node_name("beam");
    let environment = [("DRAIN_MODE", mode), ("DRAIN_COUNT", count), ("DRAIN_NODES", nodes)];
    let mut beam = otp.run(&name, DRAIN, &environment, &[]);
    beam.line("up");
    (name, beam)
}

/// A node that is connected to a BEAM, and a process of it.
async fn looking(limits: Limits, beam: &str) -> (Dist, Mailbox) {
    let node = dist(limits);
    let mut mailbox = node.register("looker").expect("free");
    dial(&node, beam).await.expect("connected");
    assert!(matches!(next(&mut mailbox).await, Inbound::PeerUp { hidden: false, .. }));
    (node, mailbox)
}

/// Waits for the end of a monitored process, or of its connection.
async fn down(mailbox: &mut Mailbox, expected: MonitorRef, because: &str) {
    match next(mailbox).await {
        Inbound::Down { monitor, reason, .. } => assert_eq!((monitor, reason.as_deref()), (expected, Some(because))),
        other => panic!("{other:?}"),
    }
}

async fn next(mailbox: &mut Mailbox) -> Inbound {
    tokio::time::timeout(SOON, mailbox.receive()).await.expect("in time").expect("the node runs")
}

#[tokio::test]
async fn a_beam_of_each_otp_can_be_dialled_called_and_monitored() {
    for otp in otps() {
        let beam = node_name("beam");
        let mut process = otp.waiting(&beam, &[], &[]);
        let (node, mut mailbox) = looking(Limits::default(), &beam).await;

        let who = tuple([atom("call"), atom("erlang"), atom("node"), etf::list([]), mailbox.pid.clone().into()]);
        let answer = node.call(&beam, "rex", who, SOON).await.expect("answered");
        assert_eq!(atom_name(&answer), Some(&*beam));
        let nobody = node.call(&beam, "nobody", atom("x"), SOON).await;
        assert!(matches!(&nobody, Err(CallError::Down { reason }) if reason == "noproc"), "{nobody:?}");
        let short = Duration::from_millis(50);
        assert!(matches!(node.call(&beam, AGENT, atom("x"), short).await, Err(CallError::Timeout)));

        let absent = node.monitor(&mailbox, &beam, Named::Name("nobody".to_owned()));
        down(&mut mailbox, absent, "noproc").await;
        let present = node.monitor(&mailbox, &beam, Named::Name(AGENT.to_owned()));
        process.child.kill().expect("killed");
        down(&mut mailbox, present, "noconnection").await;
        assert!(matches!(next(&mut mailbox).await, Inbound::PeerDown { .. }));
        assert!(matches!(node.call(&beam, "rex", atom("x"), SOON).await, Err(CallError::NotConnected)));
        node.stop();
    }
}

#[tokio::test]
async fn every_message_reaches_a_beam_and_is_echoed() {
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../test/vectors/wire/otp-25.json");
    let file: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(vectors).expect("in the repository")).expect("JSON");
    for otp in otps() {
        let beam = node_name("beam");
        let _process = otp.waiting(&beam, &[], &[]);
        let (node, mut mailbox) = looking(Limits::default(), &beam).await;
        for case in file["cases"].as_array().expect("a list") {
            let digits = case["hex"].as_str().expect("text").as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(&support::text(pair), 16).expect("hex digits");
            let bytes: Vec<u8> = digits.map(byte).collect();
            let message = handoff_wire::Message::from_bytes(&bytes).expect("a message");
            let echo = tuple([atom("echo"), mailbox.pid.clone().into(), message.to_term()]);
            node.send(&beam, &mailbox.pid, &Named::Name(AGENT.to_owned()), echo).expect("sent");
            match next(&mut mailbox).await {
                Inbound::Message(delivery) => {
                    assert_eq!(handoff_wire::Message::from_checked(&delivery.payload).expect("a message"), message);
                }
                other => panic!("{other:?}"),
            }
        }
        let awkward = [etf::list([etf::int(-1), etf::int(-2)]), etf::list([etf::uint(1)]), etf::list([])];
        for sent in awkward {
            let expected = etf::read_each(&sent, "list", 9, |term| etf::read_i64(term, "n")).expect("a list");
            let echo = tuple([atom("echo"), mailbox.pid.clone().into(), sent]);
            node.send(&beam, &mailbox.pid, &Named::Name(AGENT.to_owned()), echo).expect("sent");
            let Inbound::Message(delivery) = next(&mut mailbox).await else { panic!("a message") };
            let back = delivery.payload.decode().expect("a term");
            assert_eq!(etf::read_each(&back, "list", 9, |term| etf::read_i64(term, "n")).expect("a list"), expected);
        }
        node.stop();
    }
}

#[tokio::test]
async fn a_beam_of_each_otp_can_dial_ping_and_call_the_node() {
    for otp in otps() {
        let mut node = Node::start(&[]);
        otp.asks("127.0.0.1", &node, &[], &[]);
        assert!(node.is_alive());
        node.refused("tag", 1.0).await;
    }
}

#[tokio::test]
async fn nodes_known_to_connected_ones_are_found_and_killed_ones_reconnect() {
    for otp in otps() {
        let [(first, one), _two] = two_waiting(otp);
        let mut node = Node::start(&["--connect", &first]);
        node.connected(2.0).await;
        drop(one);
        eventually("the killed one is gone", async || node.metric("connections").await < 2.0).await;
        eventually("its name is free", async || {
            let port = epmd::lookup("localhost", &[[127, 0, 0, 1].into()], 4369, name(&first).name()).await;
            matches!(port, Err(PortMapperError::Unknown { .. }))
        })
        .await;
        let _again = otp.waiting(&first, &[], &[]);
        node.connected(2.0).await;
        assert!(node.is_alive());
    }
}

#[tokio::test]
async fn a_node_that_connects_is_asked_at_once_for_the_nodes_that_it_knows() {
    let [(first, _one), _two] = two_waiting(otps()[0]);
    // The next regular poll comes after the end of the test.
    let node = dist(Limits { discovery: 10 * SOON, ..Limits::default() });
    let _dialler = Dialler::start(node.clone(), &[name(&first).into()], &[], true);
    eventually("both are connected", async || node.peers().len() == 2).await;
    node.stop();
}

#[tokio::test]
async fn a_node_is_found_at_each_address_of_a_host() {
    let beam = node_name("beam");
    let _process = otps()[0].waiting(&beam, &[], &[]);
    let by_host = beam.replace("127.0.0.1", "localhost");
    let node = Node::start(&["--connect-dns", &by_host]);
    node.connected(1.0).await;
    assert!(node.get("/nodes").await.contains(&beam), "named by its address");
}

#[tokio::test]
async fn a_discovered_node_is_forgotten_when_it_is_gone() {
    let [(first, _one), two] = two_waiting(otps()[0]);
    let pause = (Duration::from_millis(5), Duration::from_millis(20));
    let node = dist(Limits { backoff: pause, discovery: Duration::from_millis(100), ..Limits::default() });
    let dialler = Dialler::start(node.clone(), &[name(&first).into()], &[], true);
    eventually("both are connected", async || node.peers().len() == 2).await;
    drop(two);
    eventually("one is forgotten", async || dialler.known() == [first.clone()]).await;
    node.stop();
}

#[tokio::test]
async fn a_drain_of_a_real_beam_runs_to_its_report() {
    for otp in otps() {
        let (beam_name, mut beam) = draining(otp, "run", "12000", "1");
        let node = Node::start(&["--connect", &beam_name]);
        assert_eq!(beam.line("report"), "moved=12000 of=12000 here=12000 targets=2");
        assert_eq!(beam.exit_code(), Some(0));
        node.counted("drains_ended_total{kind=\"done\"}", 1.0).await;
        eventually("it is closed", async || node.get("/drains").await.ends_with("[]")).await;
    }
}

#[test]
fn every_log_line_of_a_drain_identifies_it_and_the_last_one_says_how_it_ended() {
    let (beam_name, _beam) = draining(otps()[0], "run", "50", "1");
    let mut node = support::Process::spawn(&mut program(&["run", "--connect", &beam_name, "--log-format", "json"]));
    node.line("\"ended\":\"done\"");
    let lines = node.seen().iter().map(|line| serde_json::from_str(line).expect("JSON"));
    let of_drain: Vec<serde_json::Value> =
        lines.filter(|line: &serde_json::Value| line["span"]["name"] == "drain").collect();
    assert!(of_drain.len() >= 3, "opened, started, ended: {of_drain:?}");
    for line in &of_drain {
        assert_eq!((&line["span"]["node"], line["span"]["id"].is_u64()), (&beam_name.as_str().into(), true), "{line}");
    }
    let ended = &of_drain[of_drain.len() - 1];
    assert_eq!((&ended["level"], &ended["fields"]["moved"]), (&"INFO".into(), &50.into()), "{ended}");
}

#[tokio::test]
async fn a_node_that_gets_sigterm_hands_its_drains_back_and_exits_with_0() {
    for otp in otps() {
        let until = Instant::now() + SOON;
        loop {
            let (beam_name, mut beam) = draining(otp, "hold", "100", "1");
            let mut node = Node::start(&["--connect", &beam_name]);
            beam.line("started");
            node.process.signal("-TERM");
            let refused = beam.line_unless_ended("refused");
            assert_eq!(node.process.exit_code(), Some(0));
            // The BEAM may have been silent for so long that its drain had ended before the signal.
            if refused.is_none() && beam.seen().iter().any(|line| line == "silent") && Instant::now() < until {
                continue;
            }
            assert_eq!(refused.as_deref(), Some(":stopping"), "{:?}", beam.seen());
            break;
        }
    }
}

#[tokio::test]
async fn a_drain_notices_that_its_node_was_killed() {
    for otp in otps() {
        let (beam_name, mut beam) = draining(otp, "hold", "100", "1");
        let node = Node::start(&["--connect", &beam_name]);
        beam.line("started");
        drop(node);
        assert_eq!(beam.line("down"), ":noconnection");
    }
}

#[tokio::test]
async fn a_drain_is_forgotten_when_its_beam_is_killed() {
    let (beam_name, mut beam) = draining(otps()[0], "hold", "100", "1");
    let mut node = Node::start(&["--connect", &beam_name]);
    beam.line("started");
    drop(beam);
    eventually("no drain is left", async || node.metric("drains").await < 1.0).await;
    eventually("and nothing is in flight", async || node.metric("in_flight").await < 1.0).await;
    assert!(node.is_alive());
}

/// Connects a BEAM and a node with these tick times (seconds) and lets both send only ticks for `idle`. If
/// the busy machine delays a peer for longer than a tick time, the other side rightly drops it, and both
/// start again.
async fn idle(otp: Otp, of_beam: u64, own: u64, idle: Duration) -> (support::Process, Dist, Mailbox) {
    let flag = format!("-kernel net_ticktime {of_beam}");
    let tick_time = Duration::from_secs(own);
    let until = Instant::now() + SOON;
    loop {
        let beam_name = node_name("beam");
        // The wait for a BEAM blocks its thread, and the test's other pairs may be connecting.
        let start = {
            let (beam_name, flag) = (beam_name.clone(), flag.clone());
            move || otp.waiting(&beam_name, &[], &["--erl", &flag])
        };
        let mut beam = tokio::task::spawn_blocking(start).await.expect("started");
        let limits = Limits { tick_time, discovery: Duration::from_secs(600), ..Limits::default() };
        let (node, mut mailbox) = looking(limits, &beam_name).await;
        let began = Instant::now();
        let mut held = Duration::ZERO;
        let dropped = loop {
            let step = Instant::now();
            let inbound = tokio::time::timeout(Duration::from_millis(100), mailbox.receive()).await;
            held = held.max(step.elapsed());
            if let Ok(inbound) = inbound {
                break inbound;
            }
            if began.elapsed() >= idle {
                assert!(beam.child.try_wait().expect("asked").is_none());
                return (beam, node, mailbox);
            }
        };
        let seen_down = move || {
            beam.line("nodedown ");
            beam
        };
        let beam = tokio::task::spawn_blocking(seen_down).await.expect("seen");
        let there = beam.seen().iter().filter_map(|line| line.strip_prefix("held ")?.parse().ok());
        held = there.map(Duration::from_millis).fold(held, Duration::max);
        let least = Duration::from_secs(of_beam.min(own)) / 4;
        assert!(held > least && Instant::now() < until, "{dropped:?}, held for {held:?} at most");
        node.stop();
    }
}

/// Tests each side with any tick time of the other. `distribution::connection` proves this node's half
/// independently of the machine's load.
#[tokio::test]
async fn an_idle_connection_lasts_longer_than_every_tick_time() {
    let mut pairs = tokio::task::JoinSet::new();
    for otp in otps() {
        for (of_beam, own) in [(8, 8), (8, 3_600), (60, 4)] {
            pairs.spawn(async move { idle(otp, of_beam, own, Duration::from_secs(17)).await.1.stop() });
        }
    }
    while let Some(ended) = pairs.join_next().await {
        ended.expect("no drop");
    }
}

/// A suspended BEAM sends no ticks. Its connection ends after the tick time, and not earlier.
#[tokio::test]
async fn a_silent_peer_is_dropped_after_the_tick_time() {
    let (beam, node, mut mailbox) = idle(otps()[0], 4, 4, Duration::from_secs(6)).await;
    beam.signal("-STOP");
    assert!(matches!(next(&mut mailbox).await, Inbound::PeerDown { .. }));
    beam.signal("-CONT");
    node.stop();
}

#[tokio::test]
async fn the_nodes_of_the_cluster_are_listed_with_the_answers_of_their_agents() {
    for otp in otps() {
        let [(first, _one), (second, _two)] = two_waiting(otp);
        let listed = listed(&first);
        let mut names: Vec<&str> = listed.iter().filter_map(|line| line["name"].as_str()).collect();
        names.sort_unstable();
        let mut expected = vec![&*first, &*second];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(listed[0]["supervisors"][0]["age_s"], 61);
        assert_eq!(listed[1]["supervisors"][0]["draining"], true);
    }
}

/// The output of `nodes` for two nodes. It waits only seconds for each, so it runs again without an answer.
fn listed(connect: &str) -> Vec<serde_json::Value> {
    let until = Instant::now() + SOON;
    loop {
        let output = ask(&["nodes", "--json", "--connect", connect]);
        let listed: Vec<serde_json::Value> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let has_answered = |line: &serde_json::Value| !line["library"].is_null();
        if output.status.success() && listed.len() >= 2 && listed.iter().all(has_answered) {
            return listed;
        }
        assert!(Instant::now() < until, "{output:?}");
    }
}

#[tokio::test]
async fn a_second_node_takes_over_when_the_first_is_killed() {
    for otp in otps() {
        let (beam_name, mut beam) = draining(otp, "hold", "100", "2");
        let mut nodes = [Node::start(&["--connect", &beam_name]), Node::start(&["--connect", &beam_name])];
        beam.line("welcomed");
        let first = beam.line("started at ");
        let (killed, other) = if nodes[0].name == first { (0, 1) } else { (1, 0) };
        assert_eq!(nodes[killed].name, first);
        assert!(nodes[other].get("/drains").await.ends_with("[]"), "one drain, one coordinator");
        nodes[killed].process.child.kill().expect("killed");
        beam.line("down");
        assert_eq!(beam.line("started at "), nodes[other].name);
        assert_eq!(beam.line("report"), "moved=100 of=100 here=100 targets=2");
        assert!(nodes[other].is_alive());
    }
}
