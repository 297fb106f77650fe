//! Finds nodes in DNS and EPMD, for `--connect-dns`.
//!
//! Guarantee: at most [`resolve::LONGEST`] hosts of a name are tried, with as many nodes each as fit into an
//! answer of EPMD.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dial::{DialError, Step};
use super::dns::Resolver;
use super::epmd::{self, PortMapperError};
use super::names::{self, Seed};
use super::node::Node;
use super::resolve;

/// The time limit of DNS.
const DNS: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Found {
    pub seeds: Vec<Seed>,
    /// Hosts whose EPMD has listed nodes, each under the name that is used for a failure of that host.
    pub answered: Vec<String>,
    /// Hosts whose EPMD failed, each under a name that identifies the host.
    pub failures: Vec<(String, DialError)>,
}

/// Finds the nodes at the host of `wanted`.
///
/// A host stands for all of its addresses, and each node is named by its address, as pods behind a headless
/// Kubernetes service and machines on Fly.io are. A host that begins with `_` is a service
/// (`_dist._tcp.app.internal`): its SRV records have the hosts of nodes and, unless the service is `_epmd`,
/// their ports. A `*` in the name matches any characters in the names that EPMD has there.
/// The error is [`DialError::Resolve`] or [`DialError::Timeout`].
pub async fn nodes_at(node: &Node, wanted: &Seed) -> Result<Found, DialError> {
    let (base, host) = (wanted.name.name(), wanted.name.host());
    let resolved = timeout(DNS, places(node, wanted)).await;
    let resolved = resolved.map_err(|_late| DialError::Timeout { at: Step::Resolve })?;
    let places = resolved.map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
    let mut found = Found::default();
    let mut asking = JoinSet::new();
    for (host, port) in places {
        if base.contains('*') && port.or(node.options().dist_port).is_none() {
            let (epmd_port, base) = (node.options().epmd_port, base.to_owned());
            asking.spawn(async move { (format!("{base}@{host}"), matching(&base, &host, epmd_port).await) });
        } else {
            let name = names::parse(&format!("{base}@{host}"));
            found.seeds.extend(name.ok().map(|name| Seed { name, port }));
        }
    }
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok((name, Ok(seeds))) => {
                found.seeds.extend(seeds);
                found.answered.push(name);
            }
            Ok((name, Err(error))) => found.failures.push((name, error)),
            Err(_cancelled) => {}
        }
    }
    Ok(found)
}

/// The same for several hosts at the same time, in their order.
pub async fn nodes_at_each(node: &Node, wanted: &[Seed]) -> Vec<(Seed, Result<Found, DialError>)> {
    let asked: Vec<_> = wanted
        .iter()
        .map(|seed| {
            let (node, seed) = (node.clone(), seed.clone());
            tokio::spawn(async move {
                let found = nodes_at(&node, &seed).await;
                (seed, found)
            })
        })
        .collect();
    let mut found = Vec::with_capacity(asked.len());
    for asked in asked {
        found.extend(asked.await);
    }
    found
}

/// The hosts that DNS returns, each with the port of its node if DNS or the setting has one.
async fn places(node: &Node, wanted: &Seed) -> std::io::Result<Vec<(String, Option<u16>)>> {
    let host = wanted.name.host();
    if !host.starts_with('_') {
        let addresses = resolve::resolve(host).await?;
        return Ok(addresses.into_iter().map(|address| (address.to_string(), wanted.port)).collect());
    }
    let services = Resolver::new(node.options().dns_server).await?.services(host).await?;
    let is_epmd = host.starts_with("_epmd.");
    let port = |port: u16| wanted.port.or((port > 0 && !is_epmd).then_some(port));
    Ok(services.into_iter().map(|service| (service.host, port(service.port))).collect())
}

/// The nodes of a host whose names in EPMD match.
async fn matching(base: &str, host: &str, epmd_port: u16) -> Result<Vec<Seed>, DialError> {
    let resolved = resolve::resolve(host).await;
    let addresses = resolved.map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
    let known = epmd::names(host, &addresses, epmd_port).await?;
    let named = known.iter().filter(|name| names::matches(base, name));
    let seeds: Vec<Seed> =
        named.filter_map(|name| names::parse(&format!("{name}@{host}")).ok().map(Seed::from)).collect();
    if seeds.is_empty() {
        let unknown = PortMapperError::Unknown { host: host.to_owned(), name: base.to_owned() };
        return Err(unknown.into());
    }
    Ok(seeds)
}
