//! The files of docs/deployment are what they say: settings the node knows, and a grace period that a drain
//! fits in.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use rust_node::settings::{Flags, Settings};
use serde::Deserialize;
use serde_yaml_ng::Value;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deployment").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("in the repository")
}

/// The manifest's resource of that kind.
fn resource(name: &str, kind: &str) -> Value {
    let text = text(name);
    let all = serde_yaml_ng::Deserializer::from_str(&text);
    let mut all = all.map(|document| Value::deserialize(document).expect("YAML"));
    all.find(|resource| resource["kind"] == kind).expect("such a resource")
}

fn pod(name: &str) -> Value {
    resource(name, "Deployment")["spec"]["template"]["spec"].clone()
}

fn variables() -> Vec<String> {
    let command = Cli::command();
    command.get_arguments().filter_map(|flag| flag.get_env()).map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn the_toml_file_is_taken_as_it_is() {
    let cli = Cli::parse_from(["node", "--config", &path("node.toml").display().to_string()]);
    let settings = Settings::load(cli.flags, Some("cookie".to_owned())).expect("no problem");
    assert!(settings.allow.allows("app@app-7.internal") && !settings.allow.allows("app@elsewhere"));
}

#[test]
fn the_unit_and_the_manifest_set_only_variables_there_are() {
    let unit = text("durable-handoff-node.service");
    let of_unit = unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split('=').next());
    let pod = pod("kubernetes-node.yaml");
    let of_pod = pod["containers"][0]["env"].as_sequence().expect("a list");
    let of_pod = of_pod.iter().filter_map(|variable| variable["name"].as_str());
    let known = variables();
    let used: Vec<&str> = of_unit.chain(of_pod).collect();
    assert!(used.len() > 4, "{used:?}");
    assert!(used.iter().all(|name| known.iter().any(|known| known == name)), "{used:?} of {known:?}");
}

#[test]
fn the_cookie_is_a_file_only_its_owner_reads_and_the_probes_are_paths_there_are() {
    let pod = pod("kubernetes-node.yaml");
    let volumes = pod["volumes"].as_sequence().expect("a list");
    let secret = volumes.iter().find_map(|volume| volume.get("secret")).expect("a secret");
    assert_eq!(secret["defaultMode"], 0o400);
    let container = &pod["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
}

#[test]
fn a_beam_pod_has_time_for_the_drain_and_for_the_graceful_shutdown_after_it() {
    let pod = pod("kubernetes-beam.yaml");
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
    let hook = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("how long");
    // Phoenix's endpoint, the library's default timeout, DurableServer's own shutdown, and a margin.
    assert!(grace >= hook + 30 + 30 + 55 + 5, "{grace} s");
}
