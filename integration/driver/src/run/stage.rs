//! Prepares a run: starts nodes, servers and clients, and sets the latency of the store.

use std::time::{Duration, Instant};

use crate::Result;
use crate::beam::Cluster;
use crate::beam::commands::{Command, Outage, read_missing, read_names, read_view};
use crate::beam::node_config::{NodeConfig, Role, STORE};
use crate::history::NodeId;
use crate::progress::ModeProgress;
use crate::settings::{Scenario, Settings};
use crate::store::Store;
use crate::variant::{Executor, Mode};

/// The time limit for nodes to receive each other's heartbeats, and for a registry to receive all servers.
const SETTLE_BOUND: Duration = Duration::from_secs(120);

/// The interval of polls.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Stage {
    /// The node that is the object store, if there is one.
    pub store: Option<NodeId>,
    pub client: NodeId,
    /// The application nodes, in the order in which they will be replaced.
    pub apps: Vec<NodeId>,
}

/// The label of application node number `index` of release `generation`.
pub fn app(settings: &Settings, generation: u32, index: usize) -> NodeConfig {
    let prefix = match (settings.scenario, generation) {
        (Scenario::Drain | Scenario::Together, _) | (Scenario::ScaleOut, 1) => "node",
        (Scenario::Rolling, 1) => "old",
        (Scenario::Rolling | Scenario::ScaleOut, _) => "new",
    };
    let clock_ahead_s = settings.clock_ahead.filter(|ahead| ahead.node == index).map_or(0, |ahead| ahead.seconds);
    let elixir = match settings.scenario {
        Scenario::Rolling => settings.releases.of_generation(generation),
        Scenario::Drain | Scenario::Together | Scenario::ScaleOut => settings.releases.in_turn(index),
    };
    let newer = settings.lacks_module.is_some_and(|lacking| lacking != index);
    // Nodes that join run the release of the others.
    let generation = if settings.scenario == Scenario::ScaleOut { 1 } else { generation };
    // The first of two drains spreads the servers in the same way for all that are compared.
    let mode = (settings.second_drain && index == 0).then_some(Mode::Handoff);
    let label = format!("{prefix}{}", index + 1);
    NodeConfig { label, role: Role::App, elixir, generation, clock_ahead_s, newer, mode }
}

pub fn set(cluster: &mut Cluster, settings: &Settings, progress: &ModeProgress) -> Result<Stage> {
    let (stage, sweeps_from) = servers(cluster, settings, progress)?;
    await_typical_moment(cluster, sweeps_from, settings, progress)?;
    progress.step("clients warming up");
    cluster.call(stage.client, start_clients(settings))?;
    cluster.listen_for(settings.warm_up(), "clients warming up")?;
    Ok(stage)
}

/// Starts the nodes and servers, but no clients. Returns since when nodes may have looked for lost servers.
pub fn servers(cluster: &mut Cluster, settings: &Settings, progress: &ModeProgress) -> Result<(Stage, Instant)> {
    progress.step(&format!("starting {} nodes", settings.nodes + 1 + u32::from(settings.store.is_simulated())));
    let store = if settings.store.is_simulated() {
        Some(
            cluster.start(vec![NodeConfig {
                label: STORE.into(),
                role: Role::Store,
                elixir: settings.releases.store(),
                generation: 1,
                clock_ahead_s: 0,
                newer: false,
                mode: None,
            }])?[0],
        )
    } else {
        None
    };
    let mut configs = vec![NodeConfig {
        label: "clients".into(),
        role: Role::Client,
        elixir: settings.releases.client(),
        generation: 1,
        clock_ahead_s: 0,
        newer: false,
        mode: None,
    }];
    configs.extend((0..settings.nodes as usize).map(|index| app(settings, 1, index)));
    let mut apps = cluster.start(configs)?;
    let client = apps.remove(0);
    let stage = Stage { store, client, apps };

    let sweeps_from = Instant::now();
    if cluster.variant().executor == Executor::Node {
        progress.step("starting the Rust node");
        cluster.start_rust_node()?;
        wait_until_coordinated(cluster)?;
    }

    wait_until_all_see_all(cluster, 0)?;
    start_servers(cluster, &stage, settings, progress)?;

    // The store was fast until here: filling it is not part of the measurement.
    if let (Some(store), &Store::Simulated { latency_ms, slots, error_rate }) = (store, &settings.store) {
        cluster.call(store, Command::ConfigureStore { latency_ms, slots, error_rate, outage: Outage::None })?;
    }
    Ok((stage, sweeps_from))
}

pub fn start_clients(settings: &Settings) -> Command {
    let Settings { clients, servers, call_every_ms: every_ms, sync_one_in, call_kind: kind, .. } = *settings;
    Command::StartClients { clients, servers, every_ms, sync_one_in, kind }
}

/// In graceful mode the gap is the time to the next discovery sweep. Nodes that boot together sweep together,
/// so directly after the start every gap would be a full interval. A node that stops at a random time sees
/// half an interval on average.
fn await_typical_moment(
    cluster: &mut Cluster,
    sweeps_from: Instant,
    settings: &Settings,
    progress: &ModeProgress,
) -> Result<()> {
    if cluster.variant().mode != Mode::Graceful {
        return Ok(());
    }
    progress.step("waiting for the middle between two discovery sweeps");
    let middle = Duration::from_millis((settings.discovery_interval_ms / 2).into());
    let left = middle.saturating_sub(sweeps_from.elapsed()).saturating_sub(settings.warm_up());
    cluster.listen_for(left, "waiting for the middle between two discovery sweeps")
}

fn start_servers(cluster: &mut Cluster, stage: &Stage, settings: &Settings, progress: &ModeProgress) -> Result<()> {
    progress.step("starting servers");
    // A rolling deploy begins with evenly spread servers, as in a cluster that has run for a while. A drain
    // has full nodes beside empty ones.
    let step = settings.full_nodes();
    let Settings { servers: end, state_bytes, synced, start_ms, .. } = *settings;
    let newer = settings.lacks_module.is_some();
    let each = (0..step)
        .zip(&stage.apps)
        .map(|(first, &id)| (id, Command::StartServers { first, step, end, state_bytes, synced, start_ms, newer }));
    cluster.call_each(each.collect(), |cluster| progress.amount(cluster.heard.started, settings.servers))?;
    progress.step("waiting until the clients' registry knows every server");
    look(cluster, "the clients' registry learning of all servers", |cluster| {
        let answer = cluster.call(stage.client, Command::Missing { servers: settings.servers })?;
        Ok(read_missing(&answer)?.count == 0)
    })
}

/// Waits until every node with a supervisor has a heartbeat, sent at `since_us` or later, of every running
/// application node, and knows that the clients' node accepts no servers.
pub fn wait_until_all_see_all(cluster: &mut Cluster, since_us: u64) -> Result<()> {
    look(cluster, "every node seeing every other node's heartbeat", |cluster| {
        let apps: Vec<_> = cluster.alive_as(Role::App).collect();
        let clients: Vec<_> = cluster.alive_as(Role::Client).collect();
        let nodes: Vec<_> = apps.iter().chain(&clients).copied().collect();
        let answers = cluster.call_each(nodes.iter().map(|&id| (id, Command::View)).collect(), |_| {})?;
        for (viewer, answer) in nodes.iter().zip(answers) {
            let view = read_view(&answer)?;
            let sees = |id: NodeId, draining: bool, since_us: u64| {
                id == *viewer
                    || view.iter().any(|seen| {
                        seen.name == cluster.node(id).name
                            && seen.draining == draining
                            && seen.stamp_ms.saturating_mul(1_000) >= since_us
                    })
            };
            let ready = apps.iter().all(|&id| sees(id, false, since_us)) && clients.iter().all(|&id| sees(id, true, 0));
            if !ready {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Waits until the Rust node, if there is one, has announced itself to every application node.
pub fn wait_until_coordinated(cluster: &mut Cluster) -> Result<()> {
    let Some(name) = cluster.rust_node().map(|node| node.name.clone()) else { return Ok(()) };
    look(cluster, "the Rust node announcing itself to every node", |cluster| {
        let apps: Vec<_> = cluster.alive_as(Role::App).map(|id| (id, Command::Executors)).collect();
        for answer in cluster.call_each(apps, |_| {})? {
            if !read_names(&answer)?.contains(&name) {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Polls until `done` returns true, within [`SETTLE_BOUND`].
fn look(cluster: &mut Cluster, doing: &str, mut done: impl FnMut(&mut Cluster) -> Result<bool>) -> Result<()> {
    let mut next = Instant::now();
    cluster.wait(doing, SETTLE_BOUND, |cluster| {
        if Instant::now() < next {
            return Ok(None);
        }
        let finished = done(cluster)?;
        next = Instant::now() + LOOK_EVERY;
        Ok(finished.then_some(()))
    })
}
