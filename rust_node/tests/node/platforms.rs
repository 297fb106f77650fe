//! The files of docs/deployment for Fly.io, systemd, Docker and Kubernetes: they stop nodes with the signal and
//! the time that a drain needs, and give the Rust node settings that it takes.

use std::collections::BTreeMap;

use crate::deployment::{Cli, text};
use clap::{CommandFactory, Parser};
use rust_node::settings::Settings;
use serde::Deserialize;
use serde_yaml_ng::Value;

/// Phoenix's endpoint, the library's default timeout, DurableServer's own shutdown, and a margin.
const SHUTDOWN_S: u64 = 30 + 30 + 55 + 5;

fn fly(name: &str) -> toml::Table {
    text(name).parse().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn seconds(value: &toml::Value) -> u64 {
    let text = value.as_str().expect("a duration");
    text.strip_suffix('s').and_then(|number| number.parse().ok()).expect("seconds")
}

/// The settings that the node reads from these variables. It must know all of them.
fn settings(variables: &BTreeMap<String, String>) -> Settings {
    let command = Cli::command();
    let flag = |(name, value): (&String, &String)| {
        let argument = command.get_arguments().find(|argument| argument.get_env().is_some_and(|env| env == &**name));
        let argument = argument.unwrap_or_else(|| panic!("{name} is no variable of the node"));
        [format!("--{}", argument.get_long().expect("a long flag")), value.clone()]
    };
    let arguments = std::iter::once("node".to_owned()).chain(variables.iter().flat_map(flag));
    Settings::load(Cli::parse_from(arguments).flags, Some("cookie".to_owned())).expect("no problem")
}

#[test]
fn fly_stops_machines_with_sigterm_and_gives_them_the_time_of_a_shutdown() {
    let app = fly("fly.toml");
    assert_eq!(app["kill_signal"].as_str(), Some("SIGTERM"));
    assert!((SHUTDOWN_S..=300).contains(&seconds(&app["kill_timeout"])), "Fly takes 300 s at most");
    assert_eq!(app["deploy"]["strategy"].as_str(), Some("bluegreen"));
    assert_eq!(app["http_service"]["auto_stop_machines"].as_str(), Some("off"));
    assert!(app["http_service"]["min_machines_running"].as_integer().expect("a number") >= 2);
    let node = fly("fly-node.toml");
    assert_eq!(node["kill_signal"].as_str(), Some("SIGTERM"));
    assert!(seconds(&node["kill_timeout"]) >= 5);
}

#[test]
fn a_node_on_fly_has_a_name_that_does_not_change_with_the_image_and_ipv6() {
    let script = text("fly-env.sh.eex");
    let lines: Vec<&str> = script.lines().filter(|line| line.starts_with("export ")).collect();
    assert!(lines.contains(&"export RELEASE_NODE=\"${FLY_APP_NAME}@${FLY_PRIVATE_IP}\""), "{script}");
    assert!(lines.contains(&"export ERL_AFLAGS=\"-proto_dist inet6_tcp\""), "{script}");
    assert!(lines.iter().all(|line| !line.contains("FLY_IMAGE_REF")), "{script}");
    assert!(std::process::Command::new("sh").args(["-n", "-c", &script]).status().expect("a shell").success());
}

#[test]
fn the_rust_node_on_fly_finds_the_app_and_lets_no_other_in() {
    let (app, node) = (fly("fly.toml"), fly("fly-node.toml"));
    let name = app["app"].as_str().expect("text");
    let variables = node["env"].as_table().expect("a table").iter();
    let variables = variables.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect();
    let settings = settings(&variables);
    let http = settings.http.expect("it serves HTTP");
    assert!(http.is_ipv6() && i64::from(http.port()) == node["metrics"]["port"].as_integer().expect("a number"));
    assert_eq!(variables["DURABLE_HANDOFF_CONNECT_DNS"], format!("{name}@{name}.internal"));
    assert!(settings.allow.allows(&format!("{name}@fdaa:0:1::2")) && !settings.allow.allows("other@fdaa:0:1::2"));
}

#[test]
fn kubernetes_takes_pods_away_one_at_a_time_and_the_next_when_the_last_is_gone() {
    let text = text("kubernetes-beam.yaml");
    let all = serde_yaml_ng::Deserializer::from_str(&text).map(|one| Value::deserialize(one).expect("YAML"));
    let by_kind: BTreeMap<String, Value> =
        all.map(|one| (one["kind"].as_str().expect("a kind").to_owned(), one)).collect();
    let deployment = &by_kind["Deployment"]["spec"];
    assert_eq!(deployment["replicas"], Value::Null, "they are the autoscaler's");
    let budget = &by_kind["PodDisruptionBudget"]["spec"];
    assert_eq!((&budget["maxUnavailable"], &budget["selector"]), (&Value::from(1), &deployment["selector"]));
    let scaler = &by_kind["HorizontalPodAutoscaler"]["spec"];
    assert_eq!(scaler["scaleTargetRef"]["name"], by_kind["Deployment"]["metadata"]["name"]);
    let down = &scaler["behavior"]["scaleDown"]["policies"];
    assert_eq!(
        (down.as_sequence().map(Vec::len), &down[0]["value"], &down[0]["type"]),
        (Some(1), &1.into(), &"Pods".into())
    );
    let grace = deployment["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().expect("a number");
    assert!(down[0]["periodSeconds"].as_u64().expect("a number") > grace);
    assert!(scaler["minReplicas"].as_u64().expect("a number") >= 2);
    let resources = &deployment["template"]["spec"]["containers"][0]["resources"]["requests"];
    assert!(resources["cpu"].is_string(), "a share of nothing");
}

#[test]
fn systemd_gives_a_beam_node_the_signal_and_the_time_that_it_needs() {
    let unit = text("my_app.service");
    let of = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    assert_eq!((of("KillSignal"), of("KillMode"), of("Type")), ("SIGTERM", "mixed", "exec"));
    assert!(of("TimeoutStopSec").parse::<u64>().expect("seconds") >= SHUTDOWN_S);
    assert!(!unit.lines().any(|line| line.starts_with("MemoryDenyWriteExecute")), "the VM compiles while it runs");
}

struct Stage {
    name: String,
    /// An image, or another stage.
    from: String,
    /// Each with what follows it.
    instructions: Vec<(String, String)>,
}

fn stages(name: &str) -> Vec<Stage> {
    let text = text(name).replace("\\\n", " ");
    let mut stages: Vec<Stage> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{name}: {line}"));
        match (instruction, stages.last_mut()) {
            ("ARG", None) => {}
            ("FROM", _) => {
                let (from, stage) = rest.split_once(" AS ").unwrap_or_else(|| panic!("{name}: {line} has no name"));
                stages.push(Stage { name: stage.to_owned(), from: from.to_owned(), instructions: Vec::new() });
            }
            (_, Some(stage)) => stage.instructions.push((instruction.to_owned(), rest.trim().to_owned())),
            (_, None) => panic!("{name}: {line} before FROM"),
        }
    }
    stages
}

#[test]
fn images_run_as_another_user_than_root_with_the_program_as_process_1() {
    for name in ["Dockerfile.app", "Dockerfile.node"] {
        let stages = stages(name);
        let last = &stages.last().expect("a stage").instructions;
        let of = |instruction: &str| {
            last.iter().filter(|(name, _)| name == instruction).map(|(_, rest)| &**rest).next_back()
        };
        assert_eq!((of("USER"), of("STOPSIGNAL")), (Some("65532:65532"), Some("SIGTERM")), "{name}");
        // As a list: a shell would be process 1, and would not pass the signal on.
        for started in [of("CMD"), of("ENTRYPOINT")].into_iter().flatten() {
            assert!(serde_json::from_str::<Vec<String>>(started).is_ok(), "{name}: {started}");
        }
        for stage in &stages {
            for from in
                stage.instructions.iter().filter_map(|(_, rest)| rest.split_once("--from=")).map(|(_, rest)| rest)
            {
                let from = from.split(' ').next().expect("a name");
                assert!(stages.iter().any(|stage| stage.name == from), "{name}: no stage {from}");
            }
        }
        assert!(last.iter().all(|(_, rest)| !rest.contains("cargo") && !rest.contains("mix ")), "{name}: built before");
    }
}

#[test]
fn the_image_of_an_app_is_built_with_and_without_rust() {
    let stages = stages("Dockerfile.app");
    let of = |name: &str| stages.iter().find(|stage| stage.name == name).expect("such a stage");
    let has_rust = |name: &str| of(name).instructions.iter().any(|(_, rest)| rest.contains("rustup"));
    assert_eq!((has_rust("tools-with"), has_rust("tools-without")), (true, false));
    assert_eq!(of("build").from, "tools-${RUST}");
    assert!(text("Dockerfile.app").contains("ARG RUST=without\n"), "what most need");
}

#[test]
fn the_image_of_the_rust_node_starts_it_with_flags_that_there_are() {
    let stages = stages("Dockerfile.node");
    let last = &stages.last().expect("a stage").instructions;
    let command = last.iter().find_map(|(name, rest)| (name == "CMD").then_some(rest)).expect("a command");
    let arguments: Vec<String> = serde_json::from_str(command).expect("a list");
    let (run, flags) = arguments.split_first().expect("a command");
    assert_eq!(run, "run");
    let cli = Cli::parse_from(std::iter::once("node").chain(flags.iter().map(|flag| &**flag)));
    // Which nodes to connect to is given to docker run.
    let problems = Settings::load(cli.flags, Some("cookie".to_owned())).expect_err("one problem");
    assert_eq!(problems.len(), 1, "{problems:?}");
}
