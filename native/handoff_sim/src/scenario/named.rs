//! The named scenarios as one table, each with its expected result.

use handoff_core::{Config, Source};

use crate::scenario::deploy::Deploy;
use crate::scenario::{Faults, Load, Noise, Scenario, Strategy};
use crate::store::{StoreShape, Weather};

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    pub name: &'static str,
    /// Nodes before the deploy, and servers on each.
    pub nodes: usize,
    pub servers: u32,
    pub deploy: Deploy,
    /// See [`Scenario::coordinators`].
    pub coordinators: usize,
    /// The faults of the store.
    pub weather: &'static [(u64, u64, Weather)],
    /// The spans in which the first target refuses.
    pub flaps: &'static [(u64, u64)],
    /// Every node's limit for module 0, of which four in five servers are.
    pub hot_limit: Option<u32>,
    pub expect: Expect,
}

/// The expected result of a named scenario, for every seed.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// The least part of the servers to be moved that is moved.
    pub moved: f64,
    /// The most moves per server, on average.
    pub moves: f64,
    /// The largest part of the servers that is down at the end.
    pub down: f64,
}

const ALL: Expect = Expect { moved: 1.0, moves: 1.0, down: 0.0 };

const PLAIN: Named = Named {
    name: "",
    nodes: 6,
    servers: 100,
    deploy: Deploy::Single,
    coordinators: 0,
    weather: &[],
    flaps: &[],
    hot_limit: None,
    expect: ALL,
};

pub const NAMED: &[Named] = &[
    Named { name: "rolling-surge", deploy: Deploy::Surge, expect: Expect { moves: 1.01, ..ALL }, ..PLAIN },
    Named { name: "rolling-in-place", deploy: Deploy::InPlace, expect: Expect { moves: 1.25, ..ALL }, ..PLAIN },
    Named { name: "blue-green", deploy: Deploy::BlueGreen, ..PLAIN },
    Named { name: "blue-green-coordinated", deploy: Deploy::BlueGreen, coordinators: 1, ..PLAIN },
    Named { name: "scale-in", deploy: Deploy::ScaleIn(3), ..PLAIN },
    Named {
        name: "whole-cluster-stop",
        deploy: Deploy::WholeStop,
        // No target is left, but every node moves its first servers before it knows of the other drains.
        expect: Expect { moved: 0.0, moves: 0.1, down: 0.25 },
        ..PLAIN
    },
    Named {
        name: "region-loss",
        nodes: 7,
        deploy: Deploy::RegionLoss,
        // Servers that ran in the lost region, or had just moved there, are down.
        expect: Expect { moved: 0.9, moves: 1.0, down: 0.6 },
        ..PLAIN
    },
    Named { name: "flapping-target", flaps: &[(100, 300), (500, 700), (900, 1_100), (1_300, 1_500)], ..PLAIN },
    Named { name: "slow-store", weather: &[(300, 2_000, Weather::Slow(20.0))], ..PLAIN },
    Named {
        name: "hot-module",
        hot_limit: Some(90),
        // Each of the five other nodes has room for ten of the eighty. A fifth of the servers has no limit.
        expect: Expect { moved: 0.7, moves: 1.0, down: 0.0 },
        ..PLAIN
    },
    Named {
        name: "store-outage",
        servers: 500,
        weather: &[(300, 2_300, Weather::Refusing(1.0))],
        // Only servers whose final write was in flight when the outage began. They start again and do not
        // count as moved.
        expect: Expect { moved: 0.95, moves: 1.0, down: 0.0 },
        ..PLAIN
    },
    Named {
        name: "store-errors",
        servers: 500,
        weather: &[(0, 60_000, Weather::Refusing(0.02))],
        expect: Expect { moved: 0.9, moves: 1.0, down: 0.05 },
        ..PLAIN
    },
];

impl Named {
    pub fn find(name: &str) -> Option<&'static Named> {
        NAMED.iter().find(|named| named.name == name)
    }

    /// Where the store has faults, half of the servers have unsaved changes.
    fn unsynced(&self) -> f64 {
        if self.weather.is_empty() { 0.0 } else { 0.5 }
    }

    /// The scenario that a row describes.
    pub fn scenario(&self, seed: u64) -> Scenario {
        let mut nodes = self.deploy.nodes(self.nodes);
        for node in &mut nodes {
            node.module_limit = self.hot_limit;
        }
        if let Some(target) = nodes.get_mut(1) {
            target.not_ready = self.flaps.to_vec();
        }
        let hot = self.servers * 4 / 5;
        let load = |node, count, module| Load { node, count, module, sticky: 0, priority: 0 };
        let servers = (0..self.nodes).flat_map(|node| [load(node, hot, 0), load(node, self.servers - hot, 1)]);
        Scenario {
            name: self.name.to_owned(),
            seed,
            nodes,
            servers: servers.collect(),
            modules: 2,
            stickies: vec![Vec::new()],
            store: StoreShape { weather: self.weather.to_vec(), ..StoreShape::steady(Some(8), 10.0) },
            noise: Noise::default(),
            faults: Faults { terminate_ms: 0.5, registry_lag_ms: 2.0, unsynced: self.unsynced(), ..Faults::default() },
            script: self.deploy.script(self.nodes),
            config: Config { source: Source::default(), ..Config::default() },
            strategy: Strategy::Engine,
            coordinators: self.coordinators,
            asks: true,
            count_noise: 0.0,
        }
    }
}
