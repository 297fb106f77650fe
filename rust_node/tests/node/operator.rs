//! `drain` against a BEAM that plays the agent: how each way a drain can go ends, for people and for scripts.

use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{self, Otp, Process, node_name, otps};

const OPERATOR: &str = include_str!("beam/operator.exs");

fn agent(otp: Otp, mode: &str) -> (Process, String) {
    let name = node_name("beam");
    let mut beam = otp.run(&name, OPERATOR, &[("AGENT", mode)], &[]);
    beam.line("up");
    (beam, name)
}

fn command(node: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-handoff-node"));
    command
        .args(["drain", node, "--supervisor", "MyApp.Durable"])
        .args(flags)
        .env("DURABLE_HANDOFF_COOKIE", support::COOKIE);
    command
}

/// Without a supervisor.
fn drain_the_only_one(node: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-handoff-node"));
    command.args(["drain", node]).env("DURABLE_HANDOFF_COOKIE", support::COOKIE);
    command.output().expect("it runs")
}

fn drain(node: &str, flags: &[&str]) -> Output {
    command(node, flags).output().expect("it runs")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_drain_that_moves_everything_ends_with_its_report_and_0() {
    for otp in otps() {
        let (mut beam, name) = agent(otp, "done");
        let output = drain(&name, &["--timeout-ms", "5000"]);
        let (said, progress) = texts(&output);
        assert_eq!(beam.line("asked "), "MyApp.Durable 5000 false");
        assert_eq!(output.status.code(), Some(0), "{said} {progress}");
        assert!(said.contains("20 of 20 servers moved in 1500 ms (done)") && said.contains("b@h"), "{said}");
        assert!(progress.contains("3/20 done"), "not a terminal, so lines: {progress}");
    }
}

#[test]
fn a_node_with_one_supervisor_needs_no_name_for_it_and_one_with_several_names_them() {
    let (mut beam, name) = agent(otps()[0], "done");
    let output = drain_the_only_one(&name);
    assert_eq!((output.status.code(), &*beam.line("asked ")), (Some(0), "MyApp.Durable nil false"), "{output:?}");
    assert!(texts(&output).0.starts_with("MyApp.Durable on "), "{output:?}");
    for (mode, expected, code) in [("several", "--supervisor takes one of: A, B", 2), ("bare", "has a Drainer", 6)] {
        let (_beam, name) = agent(otps()[0], mode);
        let output = drain_the_only_one(&name);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(texts(&output).1.contains(expected), "{output:?}");
    }
}

#[test]
fn a_drain_that_leaves_servers_is_exit_code_5_and_json_says_why() {
    let (_beam, name) = agent(otps()[0], "left");
    let output = drain(&name, &["--json"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!((&report["moved"], &report["left"]["no_target"]), (&17.into(), &2.into()));
    assert_eq!((&report["gap_us"]["p99"], &report["targets"]["b@h"]), (&41_000.into(), &17.into()));
}

#[test]
fn a_dry_run_asks_for_a_plan_and_ends_with_5_when_servers_would_stay() {
    let (mut beam, name) = agent(otps()[0], "plan");
    let output = drain(&name, &["--dry-run", "--json"]);
    assert_eq!(beam.line("asked "), "MyApp.Durable nil true");
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!((&plan["dry_run"], &plan["moved"], &plan["left"]["no_target"]), (&true.into(), &18.into(), &2.into()));
    assert_eq!((&plan["estimate_us"], plan.get("attempts")), (&1_500_000.into(), None));
}

#[test]
fn a_node_of_an_earlier_release_answers_a_dry_run_with_a_report_which_is_shown_as_a_plan() {
    let (_beam, name) = agent(otps()[0], "done");
    let output = drain(&name, &["--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(texts(&output).0.contains("dry run: 20 of 20 servers would move"), "{output:?}");
}

#[test]
fn a_node_that_refuses_or_has_no_agent_is_exit_code_6() {
    for (mode, expected) in
        [("refuse", "refuses: supervisor: there is no Nope"), ("none", "durable_handoff does not run there")]
    {
        let (_beam, name) = agent(otps()[0], mode);
        let output = drain(&name, &[]);
        assert_eq!(output.status.code(), Some(6), "{output:?}");
        assert!(texts(&output).1.contains(expected), "{output:?}");
    }
}

#[test]
fn a_node_that_is_lost_on_the_way_is_exit_code_7_and_says_that_the_drain_may_go_on() {
    for mode in ["exit", "vanish"] {
        let (_beam, name) = agent(otps()[0], mode);
        let output = drain(&name, &[]);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert!(texts(&output).1.contains("the drain may go on there"), "{output:?}");
    }
}

#[test]
fn a_node_that_is_not_there_is_exit_code_3_and_a_wrong_name_is_2() {
    let code = |node: &str, flags: &[&str]| command(node, flags).output().expect("it runs").status.code();
    assert_eq!(code(&node_name("nobody"), &[]), Some(3));
    assert_eq!(code("no_host", &[]), Some(2));
    assert_eq!(code(&node_name("nobody"), &["--timeout-ms", "0"]), Some(2));
}

#[test]
fn an_interrupted_command_says_that_the_drain_goes_on_and_it_does() {
    let (mut beam, name) = agent(otps()[0], "hold");
    let mut process = shown(&name);
    process.signal("-INT");
    assert_eq!(process.line("the drain goes on at "), name);
    assert_eq!(process.exit_code(), Some(130));
    // Both read the machine's clock; what the node has said before is of no interest.
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    while beam.line("stepped at ").parse::<u128>().expect("a number") <= ended {}
}

/// The command, once it shows how far the drain is.
fn shown(node: &str) -> Process {
    let mut process = Process::spawn(&mut command(node, &[]));
    process.line("3/20 done");
    process
}
