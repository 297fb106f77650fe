//! `status`: asks the HTTP service of a running node what it coordinates.
//!
//! Guarantee: it needs no cookie and connects to no cluster; an answer longer than [`LONGEST`] or later than
//! [`ANSWER`] is an error.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::agent::{say, show_as};
use super::columns::columns;
use super::exit::Exit;
use crate::http::Status;

/// The size of an answer with a thousand nodes and a thousand drains with the longest names. Usual ones take 1 MB.
const LONGEST: usize = 32 * 1024 * 1024;
const ANSWER: Duration = Duration::from_secs(5);

/// The flags of `status`.
#[derive(Debug, Args)]
pub struct StatusFlags {
    /// The HTTP address of the node: the value of its own --http
    #[arg(long, env = "DURABLE_HANDOFF_HTTP", value_name = "ADDRESS:PORT", value_parser = place)]
    pub http: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Parses an address or a host name, with a port.
fn place(text: &str) -> Result<String, String> {
    let place = text.rsplit_once(':').filter(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains('/') && (!host.contains(':') || host.starts_with('['));
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let wrong = || "takes an address or a host, and a port, as 127.0.0.1:9464, [::1]:9464 or localhost:9464".to_owned();
    place.map(|_| text.to_owned()).ok_or_else(wrong)
}

/// Asks the node and prints the answer. Fails when the answer cannot be read.
pub async fn status(flags: StatusFlags) -> anyhow::Result<Exit> {
    let Ok(Ok(stream)) = timeout(ANSWER, TcpStream::connect(&flags.http)).await else {
        say(&format!("nothing serves HTTP on {}", flags.http));
        return Ok(Exit::Unreachable);
    };
    let body = timeout(ANSWER, get(stream, &flags.http)).await.context("no answer in time")??;
    let status: Status = serde_json::from_slice(&body).context("not a durable-handoff-node of this release")?;
    show_as(flags.json, &status, table)?;
    Ok(Exit::Done)
}

async fn get(stream: TcpStream, address: &str) -> anyhow::Result<Bytes> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let request = Request::get("/status").header("host", address).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    anyhow::ensure!(answer.status() == StatusCode::OK, "{address} answers {}", answer.status());
    let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(anyhow::Error::from_boxed)?;
    driving.abort();
    Ok(body.to_bytes())
}

fn table(status: &Status) -> String {
    let with_agent = status.nodes.iter().filter(|node| node.library.is_some()).count();
    let mut text = format!(
        "{} (release {}), running for {}, {}, {} nodes connected, {with_agent} of them with durable_handoff\n",
        status.name,
        status.release,
        age(status.running_s),
        status.not_ready.as_ref().map_or_else(|| "ready".to_owned(), |why| format!("not ready: {why}")),
        status.nodes.len(),
    );
    for node in &status.unreachable {
        let (name, since) = (&node.name, age(node.since_s));
        text.push_str(&format!("not connected for {since}: {name}: {}: {}; {}\n", node.cause, node.error, node.advice));
    }
    if status.drains.is_empty() {
        return text + "no drain\n";
    }
    let mut rows = vec![
        [
            "NODE",
            "SUPERVISOR",
            "STAGE",
            "AGE",
            "SERVERS",
            "MOVED",
            "LEFT",
            "IN FLIGHT",
            "LIMIT",
            "DISPLACED",
            "FAILURES",
            "WAITS FOR",
        ]
        .map(str::to_owned),
    ];
    for drain in &status.drains {
        rows.push([
            drain.node.clone(),
            drain.supervisor.clone(),
            drain.stage.clone(),
            age(drain.age_ms / 1_000),
            drain.total.to_string(),
            drain.moved.to_string(),
            drain.left.to_string(),
            drain.in_flight.to_string(),
            drain.limit.to_string(),
            drain.displaced.to_string(),
            drain.failures.to_string(),
            drain.waits_for.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    text.push_str(&columns(&rows));
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::troubles::Unreachable;
    use crate::http::ConnectedNode;
    use crate::service::{DrainInfo, Gaps};

    #[test]
    fn a_place_without_a_port_or_with_a_scheme_is_refused() {
        for right in ["127.0.0.1:9464", "[::1]:9464", "localhost:9464"] {
            assert_eq!(place(right).as_deref(), Ok(right));
        }
        for wrong in
            ["127.0.0.1", ":9464", "9464", "http://localhost:9464", "::1:9464", "localhost:0", "localhost:http"]
        {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_with_a_drain_says_where_it_is() {
        let node = |name: &str, library: Option<&str>| ConnectedNode {
            name: name.to_owned(),
            hidden: false,
            connected_s: 5,
            library: library.map(str::to_owned),
            supervisors: Vec::new(),
        };
        let drain = DrainInfo {
            node: "a@h".to_owned(),
            id: 1,
            supervisor: "MyApp.Durable".to_owned(),
            goal: "drain".to_owned(),
            stage: "running".to_owned(),
            age_ms: 3_500,
            total: 500,
            moved: 120,
            left: 1,
            in_flight: 8,
            displaced: 2,
            failures: 3,
            limit: 9,
            waits_for: None,
            moved_per_s: 40.0,
            gaps: Gaps::default(),
        };
        let waiting = DrainInfo {
            node: "b@h".to_owned(),
            moved: 0,
            in_flight: 0,
            waits_for: Some("limit".to_owned()),
            ..drain.clone()
        };
        let mut status = Status {
            name: "rust@h".to_owned(),
            release: "0.1.0".to_owned(),
            running_s: 7_300,
            not_ready: None,
            nodes: vec![node("a@h", Some("0.1.0")), node("b@h", None)],
            unreachable: Vec::new(),
            drains: vec![drain, waiting],
            ended: Vec::new(),
            refused: Vec::new(),
        };
        let expected = "\
rust@h (release 0.1.0), running for 2h, ready, 2 nodes connected, 1 of them with durable_handoff
NODE  SUPERVISOR     STAGE    AGE  SERVERS  MOVED  LEFT  IN FLIGHT  LIMIT  DISPLACED  FAILURES  WAITS FOR
a@h   MyApp.Durable  running  3s   500      120    1     8          9      2          3         -
b@h   MyApp.Durable  running  3s   500      0      1     0          9      2          3         limit
";
        assert_eq!(table(&status), expected);
        status.drains.clear();
        status.not_ready = Some("stopping".to_owned());
        status.unreachable.push(Unreachable {
            name: "c@h".to_owned(),
            cause: "cookie".to_owned(),
            error: "the peer has another cookie".to_owned(),
            advice: "give it".to_owned(),
            since_s: 180,
            times: 9,
        });
        let line = "not connected for 3m: c@h: cookie: the peer has another cookie; give it\nno drain\n";
        assert!(table(&status).ends_with(line), "{}", table(&status));
        assert!(table(&status).ends_with("no drain\n") && table(&status).contains("not ready: stopping"));
    }
}
