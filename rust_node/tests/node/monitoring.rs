//! Compares alerts and dashboard with the node's metrics: every metric that they name exists, the
//! series exist before their first event, and every metric has a panel.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use handoff_core::Reason;
use rust_node::metrics::{Described, Form, Metrics};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::Node;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deployment/monitoring").join(name)
}

/// The names that follow each `start` in a text.
fn names<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let name = |(at, _): (usize, &str)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    };
    text.match_indices(start).map(name).collect()
}

fn series() -> BTreeSet<String> {
    let of = |metric: &Described| {
        let endings: &[&str] = match metric.form {
            Form::Gauge | Form::Gauges => &[""],
            Form::Counter | Form::Counters => &["_total"],
            Form::Histogram => &["_bucket", "_sum", "_count"],
        };
        endings.iter().map(|ending| format!("{}{ending}", metric.name)).collect::<Vec<_>>()
    };
    Metrics::DESCRIBED.iter().flat_map(of).collect()
}

fn expressions() -> Vec<String> {
    let text = std::fs::read_to_string(path("alerts.yaml")).expect("in the repository");
    let rules = serde_yaml_ng::Value::deserialize(serde_yaml_ng::Deserializer::from_str(&text)).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_sequence().expect("a list").clone();
    rules.iter().map(|rule| rule["expr"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn alerts_use_only_existing_metrics_and_kinds() {
    let series = series();
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        + &sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../native/handoff_core/src"));
    let mut kinds = 0;
    for expression in expressions() {
        for name in names(&expression, "durable_handoff_") {
            assert!(series.contains(name), "{name}");
        }
        for matched in expression.split("kind").skip(1).filter_map(|rest| rest.split('"').nth(1)) {
            for kind in matched.split('|') {
                kinds += 1;
                assert!(sources.contains(&format!("\"{kind}\"")), "{kind} in {expression}");
            }
        }
    }
    assert!(kinds > 8, "{kinds}");
}

#[test]
fn the_alert_about_servers_that_were_left_is_about_those_that_were_to_move() {
    let expressions = expressions();
    let alert = expressions.iter().find(|expression| expression.contains("durable_handoff_left_total"));
    let not = alert.and_then(|expression| expression.split("kind!~\"").nth(1)?.split('"').next()).expect("kinds");
    let stay = Reason::ALL.iter().filter(|reason| !reason.was_to_move()).map(|reason| reason.name());
    assert_eq!(not.split('|').collect::<BTreeSet<_>>(), stay.collect());
}

/// An alert does not fire for an event that creates the series it looks at.
#[tokio::test]
async fn a_node_that_has_just_started_has_every_series_whose_increase_an_alert_uses() {
    let text = Node::start(&[]).get("/metrics").await;
    let expressions = expressions();
    let increases = expressions.iter().flat_map(|expression| expression.split("increase(").skip(1));
    let mut wanted: BTreeSet<String> =
        Reason::ALL.map(|reason| format!("durable_handoff_left_total{{kind=\"{}\"}} 0", reason.name())).into();
    for increase in increases {
        let (vector, _) = increase.split_once('[').expect("a range");
        let (name, selector) = vector.split_once('{').unwrap_or((vector, ""));
        assert!(text.contains(&format!("\n{name}")), "{name} has no series:\n{text}");
        for kind in selector.split('"').nth(1).into_iter().flat_map(|kinds| kinds.split('|')) {
            wanted.insert(format!("{name}{{kind=\"{kind}\"}} 0"));
        }
    }
    assert!(wanted.len() > Reason::ALL.len() + 8, "{wanted:?}");
    let missing: Vec<&String> = wanted.iter().filter(|line| !text.lines().any(|found| found == *line)).collect();
    assert!(missing.is_empty(), "{missing:?}\n{text}");
}

fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let text = |path: PathBuf| match path.extension() {
        Some(ending) if ending == "rs" => std::fs::read_to_string(&path).expect("text"),
        _ if path.is_dir() => sources(&path),
        _ => String::new(),
    };
    entries.map(text).collect()
}

/// One panel per metric, in two columns.
fn board() -> Value {
    let panels = Metrics::DESCRIBED.iter().enumerate().map(|(at, metric)| {
        let name = metric.name;
        let target =
            |expr: String, legend: &str| json!({ "datasource": "$datasource", "expr": expr, "legendFormat": legend });
        let rate = format!("sum by (instance) (rate({name}_total{{job=~\"$job\"}}[$__rate_interval]))");
        let quantile = |percent: u32| {
            let rates = format!("rate({name}_bucket{{job=~\"$job\"}}[$__rate_interval])");
            let quantile = f64::from(percent) / 100.0;
            target(format!("histogram_quantile({quantile}, sum by (le) ({rates}))"), &format!("p{percent}"))
        };
        let (unit, targets) = match metric.form {
            Form::Gauge => ("short", vec![target(format!("{name}{{job=~\"$job\"}}"), "{{instance}}")]),
            Form::Gauges => ("short", vec![target(format!("{name}{{job=~\"$job\"}}"), "{{instance}} {{kind}}")]),
            Form::Counter => ("ops", vec![target(rate, "{{instance}}")]),
            Form::Counters => {
                ("ops", vec![target(rate.replace("(instance)", "(instance, kind)"), "{{instance}} {{kind}}")])
            }
            Form::Histogram => ("s", vec![quantile(50), quantile(90), quantile(99)]),
        };
        json!({
            "id": at + 1,
            "type": "timeseries",
            "title": metric.help,
            "datasource": "$datasource",
            "gridPos": { "x": at % 2 * 12, "y": at / 2 * 8, "w": 12, "h": 8 },
            "fieldConfig": { "defaults": { "unit": unit, "min": 0 }, "overrides": [] },
            "targets": targets,
        })
    });
    let variable = |name: &str, kind: &str, query: &str| {
        json!({ "name": name, "type": kind, "query": query, "datasource": if kind == "query" { Some("$datasource") } else { None },
            "refresh": 1, "includeAll": kind == "query", "multi": kind == "query", "current": {} })
    };
    json!({
        "title": "durable_handoff: the Rust node",
        "uid": "durable-handoff-node",
        "schemaVersion": 39,
        "editable": true,
        "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": { "list": [
            variable("datasource", "datasource", "prometheus"),
            variable("job", "query", "label_values(durable_handoff_connections, job)"),
        ] },
        "panels": panels.collect::<Vec<_>>(),
    })
}

/// `DURABLE_HANDOFF_WRITE=1` writes it.
#[test]
fn the_dashboard_has_a_panel_for_every_metric() {
    let text = format!("{:#}\n", board());
    if std::env::var_os("DURABLE_HANDOFF_WRITE").is_some() {
        std::fs::write(path("dashboard.json"), &text).expect("written");
    }
    let file = std::fs::read_to_string(path("dashboard.json")).expect("in the repository");
    assert!(file == text, "dashboard.json is not what the metrics are: DURABLE_HANDOFF_WRITE=1 writes it");
}
