//! The virtual servers and their places.
//!
//! Guarantee: a server is in one place at a time, and every change of place updates the counts of the nodes.

use handoff_core::time::Micros;
use handoff_core::{ModuleId, ServerSpec, StickyId};

use crate::cluster::{Cluster, NodeIndex};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// The server runs on this node.
    On(NodeIndex),
    /// The server is down and reserved for the node that stopped it. No other node may start it.
    Reserved,
    /// The server is down, and any node may start it.
    #[default]
    Free,
}

#[derive(Debug, Clone, Default)]
pub struct Server {
    pub module: u32,
    pub sticky: u32,
    pub priority: i32,
    /// Whether the server fails in `init` on every node.
    pub poisoned: bool,
    /// Whether the state is missing in the store.
    pub unsynced: bool,
    /// How often the server was started elsewhere.
    pub moves: u32,
    /// When the server was last told to stop, or found to have stopped by itself, and by which drain.
    pub told_at: Micros,
    pub told_by: Option<usize>,
    /// When the server was last stopped.
    pub stopped_at: Micros,
    /// When the server was last started elsewhere.
    pub arrived_at: Micros,
    place: Place,
}

/// A server's place in the list of all servers.
pub type ServerIndex = u32;

#[derive(Debug, Default)]
pub struct Servers {
    servers: Vec<Server>,
}

impl Servers {
    /// Adds a server that runs on `node`.
    pub fn add(&mut self, node: NodeIndex, module: u32, sticky: u32, priority: i32) -> &mut Server {
        let index = self.servers.len();
        self.servers.push(Server { module, sticky, priority, place: Place::On(node), ..Server::default() });
        &mut self.servers[index]
    }

    pub fn get(&self, index: ServerIndex) -> &Server {
        &self.servers[index as usize]
    }

    pub fn all(&self) -> &[Server] {
        &self.servers
    }

    pub fn place(&self, index: ServerIndex) -> Place {
        self.servers[index as usize].place
    }

    /// The servers that run on a node, in order.
    pub fn on(&self, node: NodeIndex) -> Vec<ServerIndex> {
        (0..).zip(&self.servers).filter(|(_, server)| server.place == Place::On(node)).map(|(index, _)| index).collect()
    }

    /// Records that a server has stored its state.
    pub fn synced(&mut self, index: ServerIndex) {
        self.servers[index as usize].unsynced = false;
    }

    /// Records that a drain tells a server to stop.
    pub fn tell(&mut self, index: ServerIndex, drain: usize, now: Micros) {
        let server = &mut self.servers[index as usize];
        (server.told_at, server.told_by) = (now, Some(drain));
    }

    pub fn stop(&mut self, index: ServerIndex, reserved: bool, now: Micros, cluster: &mut Cluster) {
        let server = &mut self.servers[index as usize];
        if let Place::On(node) = server.place {
            cluster.leave(node, server.module);
            server.stopped_at = now;
        }
        server.place = if reserved { Place::Reserved } else { Place::Free };
    }

    /// Starts a stopped server on a node.
    pub fn start(&mut self, index: ServerIndex, node: NodeIndex, now: Micros, cluster: &mut Cluster) {
        let server = &mut self.servers[index as usize];
        server.place = Place::On(node);
        server.moves += 1;
        server.arrived_at = now;
        cluster.arrive(node, server.module);
    }

    /// Records that the node is gone, with all of its servers.
    pub fn lose(&mut self, node: NodeIndex, now: Micros, cluster: &mut Cluster) {
        for index in self.on(node) {
            self.stop(index, false, now, cluster);
        }
    }
}

impl Server {
    /// What an engine knows of the server.
    pub fn spec(&self) -> ServerSpec {
        ServerSpec { module: ModuleId(self.module), sticky: StickyId(self.sticky), priority: self.priority }
    }

    pub fn place(&self) -> Place {
        self.place
    }
}
