//! Newtypes for the dense indices of this crate, so that they cannot be mixed up.
//!
//! Guarantee: an id is only an index; names and keys stay with the caller. The one exception is a node's name, which
//! [`NodeTable`] interns, because targets are named in actions and reports.

use std::collections::HashMap;
use std::sync::Arc;

/// A durable server: its position in the list of the drain's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ServerId(pub u32);

/// A callback module: its position in the caller's table of modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ModuleId(pub u32);

/// A sticky signature: its position in [`crate::Config::stickies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StickyId(pub u32);

/// A BEAM node: its position in a [`NodeTable`]. The id is stable for the life of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl ServerId {
    /// The index itself.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// The index itself.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Node names and their ids. Names are never forgotten: a node that leaves and returns keeps its id.
#[derive(Debug, Clone, Default)]
pub struct NodeTable {
    names: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, NodeId>,
}

impl NodeTable {
    /// The id of `name`. A new name gets a new id.
    pub fn intern(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = NodeId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = Arc::from(name);
        self.names.push(Arc::clone(&name));
        self.ids.insert(name, id);
        id
    }

    /// The id of `name`, if the name is known.
    pub fn get(&self, name: &str) -> Option<NodeId> {
        self.ids.get(name).copied()
    }

    /// The name of an id of this table.
    pub fn name(&self, id: NodeId) -> &Arc<str> {
        &self.names[id.index()]
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True without names.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
