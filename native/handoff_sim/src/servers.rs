//! The virtual servers: where each one is.
//!
//! Guarantee: a server is in one place at a time; every change of place keeps the counts of the nodes.

use handoff_core::time::Micros;

use crate::cluster::{Cluster, NodeIndex};

/// Where a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It runs there.
    On(NodeIndex),
    /// Down, reserved for the node that stopped it: no other may start it.
    Reserved,
    /// Down, and any node may start it.
    Free,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub module: u32,
    /// Its sticky signature.
    pub sticky: u32,
    pub priority: i32,
    /// It fails in `init` on every node.
    pub poisoned: bool,
    /// Its state is not in the store.
    pub unsynced: bool,
    /// How often it was started elsewhere.
    pub moves: u32,
    /// When it was told to stop last.
    pub told_at: Micros,
    /// When it was stopped last.
    pub stopped_at: Micros,
    /// When it was started elsewhere last.
    pub arrived_at: Micros,
    /// When a start elsewhere last failed in the end: a caller that saw it there finds it gone.
    pub undone_at: Micros,
    place: Place,
}

/// A server's place in the list of all servers.
pub type ServerIndex = u32;

/// All servers.
#[derive(Debug, Default)]
pub struct Servers {
    servers: Vec<Server>,
}

impl Servers {
    /// Adds a server that runs on `node`.
    pub fn add(&mut self, node: NodeIndex, module: u32, sticky: u32, priority: i32, poisoned: bool, unsynced: bool) {
        let (told_at, stopped_at, arrived_at, undone_at) = (Micros::ZERO, Micros::ZERO, Micros::ZERO, Micros::ZERO);
        let place = Place::On(node);
        self.servers.push(Server {
            module,
            sticky,
            priority,
            poisoned,
            unsynced,
            moves: 0,
            told_at,
            stopped_at,
            arrived_at,
            undone_at,
            place,
        });
    }

    /// A server.
    pub fn get(&self, index: ServerIndex) -> &Server {
        &self.servers[index as usize]
    }

    /// All servers.
    pub fn all(&self) -> &[Server] {
        &self.servers
    }

    /// Where a server is.
    pub fn place(&self, index: ServerIndex) -> Place {
        self.servers[index as usize].place
    }

    /// The servers that run on a node, in order.
    pub fn on(&self, node: NodeIndex) -> Vec<ServerIndex> {
        (0..).zip(&self.servers).filter(|(_, server)| server.place == Place::On(node)).map(|(index, _)| index).collect()
    }

    /// A server has stored its state.
    pub fn synced(&mut self, index: ServerIndex) {
        self.servers[index as usize].unsynced = false;
    }

    /// A server is told to stop.
    pub fn tell(&mut self, index: ServerIndex, now: Micros) {
        self.servers[index as usize].told_at = now;
    }

    /// A server is stopped.
    pub fn stop(&mut self, index: ServerIndex, reserved: bool, now: Micros, cluster: &mut Cluster) {
        let server = &mut self.servers[index as usize];
        if let Place::On(node) = server.place {
            cluster.leave(node, server.module);
            server.stopped_at = now;
        }
        server.place = if reserved { Place::Reserved } else { Place::Free };
    }

    /// A server whose start has failed at the last step is down again.
    pub fn undo(&mut self, index: ServerIndex, reserved: bool, now: Micros, cluster: &mut Cluster) {
        self.stop(index, reserved, now, cluster);
        self.servers[index as usize].undone_at = now;
    }

    /// A server that is down starts on a node.
    pub fn start(&mut self, index: ServerIndex, node: NodeIndex, now: Micros, cluster: &mut Cluster) {
        let server = &mut self.servers[index as usize];
        server.place = Place::On(node);
        server.moves += 1;
        server.arrived_at = now;
        cluster.arrive(node, server.module);
    }

    /// The node is gone and with it everything that ran there.
    pub fn lose(&mut self, node: NodeIndex, now: Micros, cluster: &mut Cluster) {
        for index in self.on(node) {
            self.stop(index, false, now, cluster);
        }
    }
}

impl Server {
    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }
}
