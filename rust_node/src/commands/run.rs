//! `run`: joins the cluster and coordinates its drains until a signal stops the node.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::exit::Exit;
use crate::coordinator::{Coordinator, RELEASE};
use crate::distribution::dialler::Dialler;
use crate::distribution::handshake::Local;
use crate::distribution::tls::Tls;
use crate::distribution::{Node, NodeOptions, epmd, listener};
use crate::http;
use crate::metrics::Metrics;
use crate::open_files;
use crate::service::ServiceLimits;
use crate::settings::Settings;

/// How many queries of the HTTP service may wait for the coordinator.
const QUERIES: usize = 16;

/// Runs until SIGTERM or SIGINT, hands its drains back, and ends. A second signal ends the process at once.
pub async fn run(settings: Settings) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let bounds = http::Bounds::default();
    open_files::make_room(settings.limits.peers + settings.limits.handshakes + bounds.connections);
    let listener = bind(settings.listen, "listen").await?;
    // The port is bound before the node announces itself.
    let http_listener = bind(settings.http, "serve HTTP").await?;
    let registration = match &listener {
        Some(listener) if settings.register => {
            let port = listener.local_addr()?.port();
            tokio::select! {
                registered = epmd::register(settings.epmd_port, settings.name.name(), port) => Some(registered?),
                // EPMD has a few seconds to answer.
                () = signals.recv() => return Ok(Exit::Done),
            }
        }
        _ => None,
    };
    let creation = registration.as_ref().map_or_else(random_creation, |registration| registration.creation);
    let node = start(&settings, creation)?;
    let coordinator = Coordinator::new(&node, ServiceLimits::default())?;
    let stopping = CancellationToken::new();
    let (queries, asked) = mpsc::channel(QUERIES);
    let working = tokio::spawn(coordinator.run(asked, stopping.clone()));
    if let Some(listener) = listener {
        info!(address = %listener.local_addr()?, "accepting connections");
        tokio::spawn(listener::run(node.clone(), listener));
    }
    let _dialler = Dialler::start(node.clone(), &settings.connect, &settings.connect_dns, settings.discovery);
    if let Some(listener) = http_listener {
        info!(address = %listener.local_addr()?, "serving HTTP");
        let source = http::Source {
            node: node.clone(),
            queries,
            stopping: stopping.clone(),
            has_seeds: !settings.connect.is_empty() || !settings.connect_dns.is_empty(),
            registered: registration.as_ref().map(|registration| registration.registered.clone()),
            began,
        };
        tokio::spawn(http::serve(listener, http::router(source), bounds, node.stopped().clone()));
    }
    info!(name = %settings.name, release = RELEASE, "running");
    until_stopped(working, &stopping, &mut signals).await?;
    node.stop();
    drop(registration);
    info!("stopped");
    Ok(Exit::Done)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a signal, and then until the coordinator has handed its drains back.
async fn until_stopped(
    mut working: JoinHandle<()>,
    stopping: &CancellationToken,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    tokio::select! {
        () = signals.recv() => {}
        ended = &mut working => {
            ended.context("the coordinator has failed")?;
            anyhow::bail!("the coordinator ended unexpectedly");
        }
    }
    stopping.cancel();
    tokio::select! {
        biased;
        ended = working => ended.context("the coordinator has failed while stopping"),
        () = signals.recv() => anyhow::bail!("ended by a second signal before every drain was handed back"),
    }
}

async fn bind(address: Option<SocketAddr>, what: &str) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).with_context(|| format!("cannot {what} on {address}"))
}

/// Starts the distribution node that every command uses.
pub(super) fn start(settings: &Settings, creation: u32) -> anyhow::Result<Node> {
    let tls = settings.tls.as_ref().map(Tls::load).transpose()?;
    Ok(Node::new(NodeOptions {
        local: Local { name: settings.name.clone(), creation, cookie: settings.cookie.clone() },
        limits: settings.limits.clone(),
        allow: settings.allow.clone(),
        tls,
        epmd_port: settings.epmd_port,
        dist_port: settings.dist_port,
        dns_server: settings.dns_server,
        metrics: Metrics::default(),
    }))
}

/// A random creation number for a node that EPMD has not assigned one. Small numbers belong to earlier
/// incarnations.
pub(super) fn random_creation() -> u32 {
    rand::random::<u32>() | 0x8000_0000
}
