//! `drain` against a BEAM that acts as the agent: the text, the JSON and the exit code of each possible
//! result.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Otp, Process, Written, ask, ended, node_name, node_name_at, otps, program, text};

const OPERATOR: &str = include_str!("beam/operator.exs");

fn agent(otp: Otp, mode: &str) -> (Process, String) {
    let name = node_name("beam");
    let mut beam = otp.run(&name, OPERATOR, &[("AGENT", mode)], &[]);
    beam.line("up");
    (beam, name)
}

fn drain(code: i32, node: &str, flags: &[&str]) -> Written {
    ended(code, &[&["drain", node, "--supervisor", "MyApp.Durable"], flags].concat())
}

#[test]
fn a_drain_that_moves_everything_ends_with_its_report_and_0() {
    for otp in otps() {
        let (mut beam, name) = agent(otp, "done");
        let Written { out, err } = drain(0, &name, &["--timeout-ms", "5000"]);
        assert_eq!(beam.line("asked "), "MyApp.Durable 5000 false");
        assert!(out.contains("20 of 20 servers moved in 1500 ms (done)") && out.contains("b@h"), "{out}");
        assert!(err.contains("3/20 done"), "not a terminal, so lines: {err}");
    }
}

#[test]
fn a_node_with_one_supervisor_needs_no_name_for_it_and_one_with_several_names_them() {
    let (mut beam, name) = agent(otps()[0], "done");
    let output = ended(0, &["drain", &name]);
    assert_eq!(beam.line("asked "), "MyApp.Durable nil false");
    assert!(output.out.starts_with("MyApp.Durable on "), "{output:?}");
    for (mode, expected, code) in [("several", "--supervisor takes one of: A, B", 2), ("bare", "has a Drainer", 6)] {
        let (_beam, name) = agent(otps()[0], mode);
        let output = ended(code, &["drain", &name]);
        assert!(output.err.contains(expected), "{output:?}");
    }
}

#[test]
fn a_drain_that_leaves_servers_is_exit_code_5_and_json_says_why() {
    let (_beam, name) = agent(otps()[0], "left");
    let report = drain(5, &name, &["--json"]).json();
    assert_eq!((&report["moved"], &report["left"]["no_target"]), (&17.into(), &2.into()));
    assert_eq!((&report["gap_us"]["p99"], &report["targets"]["b@h"]), (&41_000.into(), &17.into()));
}

#[test]
fn a_dry_run_asks_for_a_plan_and_ends_with_5_when_servers_would_stay() {
    let (mut beam, name) = agent(otps()[0], "plan");
    let plan = drain(5, &name, &["--dry-run", "--json"]).json();
    assert_eq!(beam.line("asked "), "MyApp.Durable nil true");
    assert_eq!((&plan["dry_run"], &plan["moved"], &plan["left"]["no_target"]), (&true.into(), &18.into(), &2.into()));
    assert_eq!((&plan["estimate_us"], plan.get("attempts")), (&1_500_000.into(), None));
}

#[test]
fn a_node_of_an_earlier_release_answers_a_dry_run_with_a_report_which_is_shown_as_a_plan() {
    let (_beam, name) = agent(otps()[0], "done");
    let output = drain(0, &name, &["--dry-run"]);
    assert!(output.out.contains("dry run: 20 of 20 servers would move"), "{output:?}");
}

#[test]
fn a_node_that_refuses_or_has_no_agent_is_exit_code_6() {
    for (mode, expected) in
        [("refuse", "refuses: supervisor: there is no Nope"), ("none", "durable_handoff does not run there")]
    {
        let (_beam, name) = agent(otps()[0], mode);
        let output = drain(6, &name, &[]);
        assert!(output.err.contains(expected), "{output:?}");
    }
}

#[test]
fn a_node_that_is_lost_during_the_drain_is_exit_code_7_and_says_that_the_drain_may_continue() {
    for mode in ["exit", "vanish"] {
        let (_beam, name) = agent(otps()[0], mode);
        let output = drain(7, &name, &[]);
        assert!(output.err.contains("the drain may go on there"), "{output:?}");
    }
}

#[test]
fn an_unreachable_node_is_exit_code_3_and_a_wrong_name_is_2() {
    drain(3, &node_name("nobody"), &[]);
    drain(2, "no_host", &[]);
    drain(2, &node_name("nobody"), &["--timeout-ms", "0"]);
}

#[test]
fn an_interrupted_command_says_that_the_drain_continues_and_it_does() {
    let (mut beam, name) = agent(otps()[0], "hold");
    let mut process = Process::spawn(&mut program(&["drain", &name]));
    process.line("3/20 done");
    process.signal("-INT");
    assert_eq!(process.line("the drain goes on at "), name);
    assert_eq!(process.exit_code(), Some(130));
    // Both read the machine's clock. Earlier output of the node is ignored.
    let interrupted = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    while beam.line("stepped at ").parse::<u128>().expect("a number") <= interrupted {}
}

#[test]
fn cordon_and_uncordon_print_the_state_of_the_node() {
    let (mut beam, name) = agent(otps()[0], "moves");
    assert_eq!(ended(0, &["cordon", &name]).out, format!("MyApp.Durable on {name}: cordoned\n"));
    assert_eq!(beam.line("asked cordon_request "), "[cordon: true, supervisor: nil]");
    let output = ended(0, &["uncordon", &name, "--supervisor", "Other", "--json"]);
    let expected = serde_json::json!({ "node": name, "cordoned": false, "supervisors": ["Other"] });
    assert_eq!(output.json(), expected);
    assert_eq!(beam.line("asked cordon_request "), "[cordon: false, supervisor: \"Other\"]");
}

#[test]
fn a_move_prints_source_and_target_and_a_refused_one_the_reason() {
    let (mut beam, name) = agent(otps()[0], "moves");
    let output = ended(0, &["move", &name, "user/1", "--to", "c@h", "--timeout-ms", "900"]);
    let expected = format!("user/1 of MyApp.Durable: {name} to c@h, unavailable for at most 41 ms, 2 attempts\n");
    assert_eq!(output.out, expected);
    let asked = "[key: \"user/1\", supervisor: \"MyApp.Durable\", timeout_ms: 900, to: \"c@h\"]";
    assert_eq!(beam.line("asked move_request "), asked);
    let moved = ended(0, &["move", &name, "user/1", "--json"]).json();
    assert_eq!((&moved["to"], &moved["gap_us"]), (&"best@h".into(), &41_000.into()));
    let output = ended(6, &["move", &name, "none"]);
    assert!(output.err.contains("did you mean nine?"), "{output:?}");
}

#[test]
fn a_node_of_an_earlier_release_is_named_without_waiting() {
    let (_beam, name) = agent(otps()[0], "old");
    for arguments in [&["cordon", &name][..], &["move", &name, "k"], &["rebalance", "--connect", &name]] {
        let Written { out, err } = ended(6, arguments);
        assert!((out + &err).contains("its durable_handoff 9.9.9 does not know "), "{err}");
    }
}

#[test]
fn a_node_without_supervisors_whose_release_may_be_an_earlier_one_is_refused_without_waiting() {
    let (mut beam, name) = agent(otps()[0], "bare");
    for arguments in [
        &["cordon", &name][..],
        &["uncordon", &name, "--supervisor", "MyApp.Durable"],
        &["move", &name, "k", "--supervisor", "MyApp.Durable"],
        &["rebalance", "--connect", &name],
    ] {
        let output = ended(6, arguments);
        assert!(output.err.contains("a Drainer"), "{output:?}");
    }
    beam.child.kill().expect("it runs");
    assert!(beam.every_line().iter().all(|line| !line.starts_with("asked")), "it would not answer");
}

#[test]
fn a_rebalance_asks_every_node_and_shows_the_sum() {
    let (mut first, receiver) = agent(otps()[0], "moves");
    let giver = node_name("beam");
    let mut second = otps()[0].run(&giver, OPERATOR, &[("AGENT", "moves"), ("OTHER", &receiver)], &[]);
    second.line("up");
    // One of the two refuses.
    let plan = ended(6, &["rebalance", "--connect", &giver, "--dry-run", "--json", "--timeout-ms", "700"]).json();
    assert_eq!(
        (&plan["moved"], &plan["dry_run"], &plan["supervisor"]),
        (&5.into(), &true.into(), &"MyApp.Durable".into())
    );
    let of = |node: &str, plan: &serde_json::Value| {
        let rows = plan["nodes"].as_array().expect("a list");
        rows.iter().find(|row| row["node"] == node).expect("both are listed").clone()
    };
    let (gives, takes) = (of(&giver, &plan), of(&receiver, &plan));
    assert_eq!((&gives["before"], &gives["moved"], &gives["after"]), (&20.into(), &5.into(), &15.into()));
    assert_eq!((&takes["after"], &takes["error"]), (&25.into(), &"a node drains".into()));
    for beam in [&mut first, &mut second] {
        let asked = "[dry_run: true, supervisor: \"MyApp.Durable\", timeout_ms: 700]";
        assert_eq!(beam.line("asked rebalance_request "), asked);
    }
    let Written { out, err } = ended(6, &["rebalance", "--connect", &giver]);
    assert!(out.starts_with("MyApp.Durable: 5 servers moved\n") && out.contains("left: no_target 1"), "{out}");
    assert!(err.contains("3/"), "{err}");
    let output = ask(&["rebalance", "--connect", &giver, "--supervisor", "MyApp.Durabel"]);
    assert!(text(&output.stderr).contains("did you mean MyApp.Durable?"), "{output:?}");
}

/// A node that knows another one, whose AGENT is `other`.
fn two_nodes(other: &str) -> (Process, String, Process, String) {
    let (second, silent) = agent(otps()[0], other);
    let name = node_name("beam");
    let mut first = otps()[0].run(&name, OPERATOR, &[("AGENT", "moves"), ("OTHER", &silent)], &[]);
    first.line("up");
    (first, name, second, silent)
}

#[test]
fn a_node_that_does_not_describe_itself_has_a_row_with_the_reason_and_sets_the_exit_code() {
    for (mode, code, why) in [("silent", 7, "no answer for 3 s"), ("full", 6, "it takes at most 32 requests")] {
        let (_first, name, _second, silent) = two_nodes(mode);
        let of = |output: &Written, field: &str| {
            let json = output.json();
            let rows = json.get("nodes").unwrap_or(&json).as_array().expect("a list").clone();
            rows.iter().find(|row| row[field] == *silent).expect("it is listed").clone()
        };
        let row = of(&ended(code, &["rebalance", "--connect", &name, "--dry-run", "--json"]), "node");
        assert_eq!((&row["error"], &row["before"], &row["moved"]), (&why.into(), &().into(), &0.into()));
        let row = of(&ended(code, &["nodes", "--connect", &name, "--json"]), "name");
        assert_eq!((&row["error"], &row["library"]), (&why.into(), &().into()));
        let Written { out, err } = ended(code, &["nodes", "--connect", &name]);
        assert!(out.contains(&silent) && err.contains(&format!("{silent}: {why}")), "{out}{err}");
        // It may have the supervisor.
        let said = ended(code, &["rebalance", "--connect", &name, "--supervisor", "Other"]).err;
        assert!(said.contains("no node has Other") && said.contains(&format!("{silent}: {why}")), "{said}");
    }
}

#[test]
fn a_node_that_cannot_be_reached_has_a_row_with_the_reason_and_sets_the_exit_code() {
    let (_first, name) = agent(otps()[0], "moves");
    let (closed, absent) = (node_name("beam"), node_name("absent"));
    // The first node knows this one, which accepts no other.
    let code = "first = String.to_atom(System.fetch_env!(\"FIRST\"))
    :ok = :net_kernel.allow([first])
    connect = fn connect -> Node.ping(first) == :pong or connect.(connect) end
    connect.(connect)
    IO.puts(\"up\")
    Process.sleep(:infinity)";
    let mut second = otps()[0].run(&closed, code, &[("FIRST", &name)], &[]);
    second.line("up");
    let why = |connect: &str, missing: &str| {
        let plan = ended(3, &["rebalance", "--connect", connect, "--dry-run", "--json"]).json();
        let list = ended(3, &["nodes", "--connect", connect, "--json"]).json();
        let row = |rows: &serde_json::Value, field: &str| {
            let mut rows = rows.as_array().expect("a list").iter();
            rows.find(|row| row[field] == *missing).unwrap_or_else(|| panic!("{missing} is listed")).clone()
        };
        let (asked, listed) = (row(&plan["nodes"], "node"), row(&list, "name"));
        assert_eq!((&asked["before"], &asked["moved"], &listed["library"]), (&().into(), &0.into(), &().into()));
        assert_eq!(asked["error"], listed["error"]);
        asked["error"].as_str().expect("a reason").to_owned()
    };
    assert!(why(&name, &closed).contains("not_allowed"));
    assert!(why(&format!("{name},{absent}"), &absent).contains("cannot be reached: EPMD"));
}

#[test]
fn a_node_that_only_dns_names_is_no_error_of_a_command_for_all_nodes() {
    let (_first, name) = agent(otps()[0], "moves");
    let absent = node_name_at("absent", "localhost");
    let Written { out, err } = ended(0, &["nodes", "--connect", &name, "--connect-dns", &absent]);
    let at_address = absent.replace("localhost", "127.0.0.1");
    assert!(!out.contains(&at_address) && err.contains(&format!("{at_address}: cannot be reached")), "{out}{err}");
    ended(3, &["nodes", "--connect-dns", &absent]);
}

#[test]
fn a_node_without_an_agent_is_no_error_of_a_command_for_all_nodes() {
    let (_first, name, _second, without) = two_nodes("none");
    let output = ended(0, &["rebalance", "--connect", &name, "--dry-run"]);
    assert!(!output.out.lines().any(|line| line.starts_with(&without)), "{output:?}");
    assert!(ended(0, &["nodes", "--connect", &name]).out.contains(&without));
}
