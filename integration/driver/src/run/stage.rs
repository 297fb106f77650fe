//! Before anything is drained: nodes, servers, a store at its speed, clients calling.

use std::time::{Duration, Instant};

use crate::Result;
use crate::beam::Cluster;
use crate::beam::commands::{Command, read_missing, read_view};
use crate::beam::node_config::{NodeConfig, Role, STORE};
use crate::history::NodeId;
use crate::progress::ModeProgress;
use crate::settings::{Mode, Scenario, Settings};

/// How long nodes may take to see each other's heartbeats, and a registry to learn of all servers.
const SETTLE_BOUND: Duration = Duration::from_secs(120);

/// Between two looks at something that only asking can tell.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who is who.
#[derive(Debug)]
pub struct Stage {
    /// The node that plays the object store.
    pub store: NodeId,
    /// The node with the clients.
    pub client: NodeId,
    /// The application nodes, in the order in which they will be replaced.
    pub apps: Vec<NodeId>,
}

/// Label of the application node number `index` of release `generation`.
pub fn app(settings: &Settings, generation: u32, index: usize) -> NodeConfig {
    let prefix = match (settings.scenario, generation) {
        (Scenario::Drain, _) => "node",
        (Scenario::Rolling, 1) => "old",
        (Scenario::Rolling, _) => "new",
    };
    NodeConfig { label: format!("{prefix}{}", index + 1), role: Role::App, generation }
}

/// Sets the stage.
pub fn set(cluster: &mut Cluster, settings: &Settings, progress: &ModeProgress) -> Result<Stage> {
    progress.step(&format!("starting {} nodes", settings.nodes + 2));
    let store = cluster.start(vec![NodeConfig { label: STORE.into(), role: Role::Store, generation: 1 }])?[0];
    let mut configs = vec![NodeConfig { label: "clients".into(), role: Role::Client, generation: 1 }];
    configs.extend((0..settings.nodes as usize).map(|index| app(settings, 1, index)));
    let mut apps = cluster.start(configs)?;
    let client = apps.remove(0);
    let stage = Stage { store, client, apps };

    let sweeps_from = Instant::now();

    wait_until_all_see_all(cluster, 0)?;
    start_servers(cluster, &stage, settings, progress)?;

    // Until here the store answered at once: filling it is no part of what is measured.
    cluster.call(store, Command::ConfigureStore { latency_ms: settings.latency_ms, slots: settings.slots })?;
    await_typical_moment(cluster, sweeps_from, settings, progress)?;
    progress.step("clients warming up");
    cluster.call(client, Command::StartClients { clients: settings.clients, servers: settings.servers })?;
    cluster.listen_for(settings.warm_up(), "clients warming up")?;
    Ok(stage)
}

/// In graceful mode the gap is the time to the next discovery sweep. Nodes that boot together sweep together, so right after the start
/// every gap would be the longest possible, a full interval; half an interval is what a node stopped at any time sees on average.
fn await_typical_moment(
    cluster: &mut Cluster,
    sweeps_from: Instant,
    settings: &Settings,
    progress: &ModeProgress,
) -> Result<()> {
    if cluster.mode() != Mode::Graceful {
        return Ok(());
    }
    progress.step("waiting for the middle between two discovery sweeps");
    let middle = Duration::from_millis((settings.discovery_interval_ms / 2).into());
    let left = middle.saturating_sub(sweeps_from.elapsed()).saturating_sub(settings.warm_up());
    cluster.listen_for(left, "waiting for the middle between two discovery sweeps")
}

fn start_servers(cluster: &mut Cluster, stage: &Stage, settings: &Settings, progress: &ModeProgress) -> Result<()> {
    progress.step("starting servers");
    // In a rolling deploy evenly, as a cluster that has run for a while. A drain looks at one full node and free ones beside it.
    let hosts = match settings.scenario {
        Scenario::Rolling => &stage.apps[..],
        Scenario::Drain => &stage.apps[..1],
    };
    let step = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
    let each = (0..).zip(hosts).map(|(first, &id)| (id, Command::StartServers { first, step, end: settings.servers }));
    cluster.call_each(each.collect(), |cluster| progress.amount(cluster.started(), settings.servers))?;
    progress.step("waiting until the clients' registry knows every server");
    look(cluster, "the clients' registry learning of all servers", |cluster| {
        let answer = cluster.call(stage.client, Command::Missing { servers: settings.servers })?;
        Ok(read_missing(&answer)?.count == 0)
    })
}

/// Waits until every node with a supervisor has a heartbeat of every application node that is up, sent at `since_us` or later, and
/// knows that the clients' node takes no servers.
pub fn wait_until_all_see_all(cluster: &mut Cluster, since_us: u64) -> Result<()> {
    look(cluster, "every node seeing every other node's heartbeat", |cluster| {
        let apps: Vec<_> = cluster.alive_as(Role::App).collect();
        let clients: Vec<_> = cluster.alive_as(Role::Client).collect();
        let everyone: Vec<_> = apps.iter().chain(&clients).copied().collect();
        let answers = cluster.call_each(everyone.iter().map(|&id| (id, Command::View)).collect(), |_| {})?;
        for (viewer, answer) in everyone.iter().zip(answers) {
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

/// Looks again and again until `done`, within [`SETTLE_BOUND`].
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
