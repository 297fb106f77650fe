//! `doctor`: tries once, step by step, to reach each node, and says what to do about each failure.
//!
//! Guarantee: the command takes as long as the slowest host to look up and then the slowest node, at most [`WATCH`]
//! longer than a handshake may. The command changes nothing: nodes see a hidden node connect and disconnect.

use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::agent::{say, show_as};
use super::columns::columns;
use super::exit::Exit;
use super::run::{random_creation, start};
use crate::distribution::cause::Cause;
use crate::distribution::dial::{DialError, Step, Trace, dial_traced};
use crate::distribution::found::nodes_at_each;
use crate::distribution::{Node, Seed};
use crate::open_files;
use crate::settings::Settings;

/// How long a connection must last to count as stable. A peer whose tick time is too short for this node ends
/// the connection earlier.
const WATCH: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    Failed,
    /// The step was not needed, or an earlier step failed.
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    node: String,
    addresses: Vec<String>,
    port: Option<u16>,
    dns: Outcome,
    epmd: Outcome,
    connect: Outcome,
    tls: Outcome,
    handshake: Outcome,
    flags: Outcome,
    cookie: Outcome,
    tick: Outcome,
    /// [`Cause::label`].
    cause: Option<&'static str>,
    error: Option<String>,
    advice: Option<&'static str>,
}

/// Tries every node that is configured or found in DNS, prints a table, and says what to do.
pub async fn doctor(settings: Settings, json: bool) -> anyhow::Result<Exit> {
    let node = start(&settings, random_creation())?;
    let rows = rows(&node, &settings).await;
    node.stop();
    show_as(json, &*rows, table)?;
    for row in &rows {
        if let Some(error) = &row.error {
            let advice = row.advice.map(|advice| format!("; {advice}")).unwrap_or_default();
            say(&format!("{}: {error}{advice}", row.node));
        }
    }
    let all_reached = !rows.is_empty() && rows.iter().all(|row| row.error.is_none());
    Ok(if all_reached { Exit::Done } else { Exit::Unreachable })
}

async fn rows(node: &Node, settings: &Settings) -> Vec<Row> {
    // A node that cannot be dialled for lack of them has that error.
    let _limit = open_files::raise(settings.limits.known);
    let mut rows = Vec::new();
    let mut seeds = settings.connect.clone();
    for (host, found) in nodes_at_each(node, &settings.connect_dns).await {
        match found {
            Ok(found) => {
                for seed in found.seeds {
                    if !seeds.contains(&seed) {
                        seeds.push(seed);
                    }
                }
                let asked = Trace { step: Step::PortMapper, ..Trace::default() };
                let failed = |(name, error): &(String, DialError)| Row {
                    node: name.clone(),
                    ..row(node, &host, &asked, Some(error))
                };
                rows.extend(found.failures.iter().map(failed));
            }
            Err(error) => rows.push(row(node, &host, &Trace::default(), Some(&error))),
        }
    }
    let mut tries = JoinSet::new();
    for (place, seed) in seeds.into_iter().enumerate() {
        let node = node.clone();
        tries.spawn(async move { (place, examine(&node, &seed).await) });
    }
    let mut tried: Vec<(usize, Row)> = Vec::new();
    while let Some(ended) = tries.join_next().await {
        tried.extend(ended);
    }
    tried.sort_by_key(|(place, _)| *place);
    rows.extend(tried.into_iter().map(|(_, row)| row));
    rows
}

async fn examine(node: &Node, seed: &Seed) -> Row {
    let mut trace = Trace::default();
    if let Err(error) = dial_traced(node, seed, &mut trace).await {
        return row(node, seed, &trace, Some(&error));
    }
    let name = seed.name.to_string();
    let mut row = row(node, seed, &trace, None);
    let Some(end) = node.connected(&name) else { return lost(node, row) };
    match timeout(WATCH, end.cancelled()).await {
        Ok(()) => lost(node, row),
        Err(_lasts) => {
            row.tick = Outcome::Ok;
            row
        }
    }
}

/// The row of a node that accepted the handshake and then ended the connection.
fn lost(node: &Node, row: Row) -> Row {
    let known = node.troubles().list().into_iter().find(|unreachable| unreachable.name == row.node);
    let cause = known.as_ref().and_then(|known| Cause::ALL.iter().find(|cause| cause.label() == known.cause));
    let error = known.map_or_else(|| "it ended the connection".to_owned(), |known| known.error);
    let cause = cause.copied().unwrap_or(Cause::Handshake);
    Row { tick: Outcome::Failed, cause: Some(cause.label()), error: Some(error), advice: Some(cause.advice()), ..row }
}

fn row(node: &Node, seed: &Seed, trace: &Trace, error: Option<&DialError>) -> Row {
    let failed = error.map(|error| error.step(trace.step));
    let step = |step: Step| match failed {
        Some(failed) if failed == step => Outcome::Failed,
        Some(failed) if failed < step => Outcome::Skipped,
        _ => Outcome::Ok,
    };
    let needed = |needed: bool, outcome: Outcome| if needed { outcome } else { Outcome::Skipped };
    let options = node.options();
    let cause = error.and_then(DialError::cause);
    Row {
        node: seed.name.to_string(),
        addresses: trace.addresses.iter().map(ToString::to_string).collect(),
        port: trace.port,
        dns: step(Step::Resolve),
        epmd: needed(seed.port.or(options.dist_port).is_none(), step(Step::PortMapper)),
        connect: step(Step::Port),
        tls: needed(options.tls.is_some() || failed == Some(Step::Tls), step(Step::Tls)),
        handshake: step(Step::Handshake),
        flags: step(Step::Flags),
        cookie: step(Step::Cookie),
        tick: Outcome::Skipped,
        cause: cause.map(Cause::label),
        error: error.map(ToString::to_string),
        advice: cause.map(Cause::advice),
    }
}

fn table(rows: &[Row]) -> String {
    let heads = ["NODE", "DNS", "EPMD", "PORT", "TLS", "HANDSHAKE", "FLAGS", "COOKIE", "TICK"];
    let mut cells = vec![heads.map(str::to_owned)];
    let text = |outcome: Outcome, ok: &str| match outcome {
        Outcome::Ok => ok.to_owned(),
        Outcome::Failed => "FAILED".to_owned(),
        Outcome::Skipped => "-".to_owned(),
    };
    for row in rows {
        let port = row.port.map_or_else(|| "ok".to_owned(), |port| port.to_string());
        cells.push([
            row.node.clone(),
            text(row.dns, &row.addresses.join(",")),
            text(row.epmd, "ok"),
            text(row.connect, &port),
            text(row.tls, "ok"),
            text(row.handshake, "ok"),
            text(row.flags, "ok"),
            text(row.cookie, "ok"),
            text(row.tick, "ok"),
        ]);
    }
    columns(&cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failed_step_is_marked_and_later_steps_do_not_count_as_passed() {
        let row = Row {
            node: "a@h".to_owned(),
            addresses: vec!["::1".to_owned()],
            port: Some(9_105),
            dns: Outcome::Ok,
            epmd: Outcome::Skipped,
            connect: Outcome::Failed,
            tls: Outcome::Skipped,
            handshake: Outcome::Skipped,
            flags: Outcome::Skipped,
            cookie: Outcome::Skipped,
            tick: Outcome::Skipped,
            cause: Some("port"),
            error: Some("refused".to_owned()),
            advice: None,
        };
        let expected = "\
NODE  DNS  EPMD  PORT    TLS  HANDSHAKE  FLAGS  COOKIE  TICK
a@h   ::1  -     FAILED  -    -          -      -       -
";
        assert_eq!(table(&[row]), expected);
    }
}
