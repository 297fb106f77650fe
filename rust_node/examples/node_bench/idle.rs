//! Idle connections, which carry ticks only.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::beam::{COOKIE, Process, get, node, unique, until};

#[derive(Debug, Serialize)]
pub struct Idle {
    connections: usize,
    /// The `net_ticktime` of the BEAMs, assigned in turn.
    tick_times_s: Vec<u64>,
    seconds: u64,
    connected_at_the_end: usize,
    /// Age of the youngest connection at the end; below the length of the measurement it shows a reconnect.
    youngest_s: u64,
    dropped: u64,
    node_bytes: u64,
}

/// Connects and waits. The node uses its default tick time. A connection that was lost is an error, even if it
/// was replaced.
pub async fn measure(connections: usize, seconds: u64, tick_times_s: &[u64]) -> anyhow::Result<Idle> {
    let mut beams = Vec::new();
    let mut names = Vec::new();
    for tick_time_s in tick_times_s.iter().cycle().take(connections) {
        let name = unique("idle", "127.0.0.1");
        let mut command = Command::new("erl");
        command.args(["-noinput", "+S", "1:1", "-kernel", "net_ticktime", &tick_time_s.to_string()]);
        command.args(["-name", &name, "-setcookie", COOKIE, "-eval", "io:format(\"up~n\")."]).stderr(Stdio::null());
        beams.push(Process::start(&mut command, "up")?.0);
        names.push(name);
    }
    let arguments = ["--connect", &names.join(","), "--discovery", "false"];
    let (process, http) = node(&arguments.map(str::to_owned))?;
    let connected = async || -> anyhow::Result<Vec<u64>> {
        let nodes: serde_json::Value = serde_json::from_str(&get(http, "/nodes").await?)?;
        let nodes = nodes.as_array().context("a list")?;
        Ok(nodes.iter().filter_map(|node| node["connected_s"].as_u64()).collect())
    };
    until("all are connected", async || Ok(connected().await?.len() == connections)).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let ages = connected().await?;
    let metrics = get(http, "/metrics").await?;
    let dropped = metrics.lines().filter(|line| line.starts_with("durable_handoff_peers_dropped_total{"));
    let dropped = dropped.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    let idle = Idle {
        connections,
        tick_times_s: tick_times_s.to_vec(),
        seconds,
        connected_at_the_end: ages.len(),
        youngest_s: ages.iter().copied().min().unwrap_or(0),
        dropped,
        node_bytes: process.memory()?,
    };
    let is_kept = ages.len() == connections && idle.youngest_s >= seconds && dropped == 0;
    anyhow::ensure!(is_kept, "a connection was lost\n{}", idle.table());
    Ok(idle)
}

impl Idle {
    pub fn table(&self) -> String {
        let Idle { connections, tick_times_s, seconds, connected_at_the_end, youngest_s, dropped, node_bytes } = self;
        let tick_times: Vec<String> = tick_times_s.iter().map(u64::to_string).collect();
        format!(
            "Idle connections to BEAMs of net_ticktime {}\n{connections} connected, {connected_at_the_end} after {seconds} s, the youngest {youngest_s} s old, {dropped} dropped; {} MB resident\n",
            tick_times.join(", "),
            node_bytes / 1_048_576
        )
    }
}
