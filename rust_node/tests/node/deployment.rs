//! Checks the files of docs/deployment: they use existing settings, and the grace periods are long enough for
//! a drain.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use rust_node::settings::{Flags, Settings};
use serde::Deserialize;
use serde_yaml_ng::Value;

#[derive(Debug, Parser)]
pub struct Cli {
    #[command(flatten)]
    pub flags: Flags,
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deployment").join(name)
}

pub fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The first resource of that kind in the manifest.
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
fn the_toml_file_has_only_valid_settings() {
    let cli = Cli::parse_from(["node", "--config", &path("node.toml").display().to_string()]);
    let settings = Settings::load(cli.flags, Some("cookie".to_owned())).expect("no problem");
    assert!(settings.allow.allows("app@app-7.internal") && !settings.allow.allows("app@elsewhere"));
}

#[test]
fn the_unit_and_the_manifest_set_only_known_variables() {
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
fn only_the_owner_can_read_the_cookie_file_and_the_probes_use_existing_paths() {
    let pod = pod("kubernetes-node.yaml");
    let volumes = pod["volumes"].as_sequence().expect("a list");
    let secret = volumes.iter().find_map(|volume| volume.get("secret")).expect("a secret");
    assert_eq!(secret["defaultMode"], 0o400);
    let container = &pod["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
}

#[test]
fn a_beam_pod_has_time_for_the_drain_and_the_graceful_shutdown() {
    let pod = pod("kubernetes-beam.yaml");
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
    let hook = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("how long");
    // Phoenix's endpoint, the library's default timeout, DurableServer's own shutdown, and a margin.
    assert!(grace >= hook + 30 + 30 + 55 + 5, "{grace} s");
}

#[test]
fn the_help_states_the_defaults_and_ranges_of_the_settings() {
    let load = |arguments: &[&str]| {
        let arguments = [&["node", "--connect", "a@127.0.0.1"], arguments].concat();
        Settings::load(Cli::parse_from(arguments).flags, Some("cookie".to_owned()))
    };
    let settings = load(&[]).expect("enough");
    let defaults = [
        ("register", format!("{} without --dist-port", settings.register)),
        ("discovery", settings.discovery.to_string()),
        ("epmd_port", settings.epmd_port.to_string()),
        ("tick_time_s", settings.limits.tick_time.as_secs().to_string()),
        ("log_format", format!("{:?}", settings.log_format).to_lowercase()),
    ];
    let command = Cli::command();
    let help = |flag: &clap::Arg| flag.get_help().expect("each flag has a text").to_string();
    // The defaults of these flags are descriptions, not values.
    let described = ["name", "dns_server", "log_level"];
    let stated = command.get_arguments().filter_map(|flag| {
        let help = help(flag);
        let (_, default) = help.split_once("[default: ")?;
        let name = flag.get_id().as_str();
        (!described.contains(&name)).then(|| (name.to_owned(), default.trim_end_matches(']').to_owned()))
    });
    assert_eq!(stated.collect::<Vec<_>>(), defaults.map(|(name, default)| (name.to_owned(), default)));

    let problems = load(&["--tick-time-s", "0"]).expect_err("out of range");
    let (_, range) = problems[0].split_once("takes ").expect("the error has the range");
    let tick_time = command.get_arguments().find(|flag| flag.get_id() == "tick_time_s").expect("a flag");
    assert!(help(tick_time).contains(range), "{range}");
}
