//! `view`: the cluster as the source sees it, in parts.
//!
//! Guarantee: a view takes effect as a whole or not at all. [`ViewParts`] keeps at most one incomplete view,
//! with no more nodes than the engine accepts and no more than [`MAX_BYTES`].

use etf::{Error, Term, list, read_each, read_value, value};
use handoff_core::view::MAX_NODES;
use handoff_core::{Capacity, ClusterView, ModuleId, NodeView};

use crate::body::{DrainId, body, values};

/// Nodes in one part. With a hundred limits and variables each, a part is far below the largest frame.
pub const PER_PART: usize = 100;
/// The approximate memory limit of a view: 1,600 bytes for each node of the largest view.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;

/// `{durable_handoff, 1, view, Id, Part, Parts, NowMs, [Node]}`, parts numbered from 1; a view of no nodes
/// has one empty part.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewPart {
    pub id: DrainId,
    pub part: u32,
    pub parts: u32,
    /// The source's wall clock when the view was taken, milliseconds.
    pub now_ms: i64,
    pub nodes: Vec<NodeView>,
}

impl ViewPart {
    pub fn split(id: DrainId, view: ClusterView) -> Vec<ViewPart> {
        let parts = u32::try_from(view.nodes.len().div_ceil(PER_PART).max(1)).unwrap_or(u32::MAX);
        let mut nodes = view.nodes.into_iter();
        (1..=parts)
            .map(|part| ViewPart {
                id,
                part,
                parts,
                now_ms: view.now_ms,
                nodes: nodes.by_ref().take(PER_PART).collect(),
            })
            .collect()
    }
}

body!(ViewPart = "view": id, part, parts, now_ms, nodes);

values!(Vec<NodeView>: |nodes| list(nodes.iter().map(value)), read_nodes;);

fn read_nodes(term: &Term, field: &'static str) -> Result<Vec<NodeView>, Error> {
    read_each(term, field, PER_PART, |node| read_value(node, "node"))
}

/// A view that is being assembled.
#[derive(Debug, Default)]
pub struct ViewParts {
    nodes: Vec<NodeView>,
    bytes: usize,
    next: u32,
}

impl ViewParts {
    /// Adds a part. Returns the whole view after the last part. Part 1 always begins a new view. A part that
    /// does not follow the one before, or is too large, is an error, and the incomplete view is discarded.
    pub fn add(&mut self, part: ViewPart) -> Result<Option<ClusterView>, Error> {
        if part.part == 1 {
            *self = ViewParts { nodes: Vec::new(), bytes: 0, next: 1 };
        }
        let total = self.nodes.len() + part.nodes.len();
        let bytes = self.bytes + part.nodes.iter().map(weight).sum::<usize>();
        if part.part != self.next || part.part == 0 || part.part > part.parts {
            *self = ViewParts::default();
            return Err(Error::Field { field: "part", takes: "the next part" });
        }
        if total > MAX_NODES {
            *self = ViewParts::default();
            return Err(Error::TooMany { what: "nodes of a view", got: total, takes: MAX_NODES });
        }
        if bytes > MAX_BYTES {
            *self = ViewParts::default();
            return Err(Error::TooMany { what: "bytes of a view", got: bytes, takes: MAX_BYTES });
        }
        self.nodes.extend(part.nodes);
        self.bytes = bytes;
        self.next += 1;
        if part.part < part.parts {
            return Ok(None);
        }
        Ok(Some(ClusterView { now_ms: part.now_ms, nodes: std::mem::take(self).nodes }))
    }
}

/// The approximate memory of a node's part of a view.
fn weight(node: &NodeView) -> usize {
    let texts = [Some(&node.name), node.generation.as_ref(), node.region.as_ref()];
    let text: usize = texts.into_iter().flatten().map(String::len).sum();
    let pair = |(name, value): &(String, String)| size_of::<(String, String)>() + name.len() + value.len();
    let capacity = node.capacity.len() * size_of::<Capacity>();
    let missing = node.missing.len() * size_of::<ModuleId>();
    size_of::<NodeView>() + text + capacity + missing + node.env.iter().map(pair).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(nodes: usize) -> ClusterView {
        let node = |index: usize| NodeView { name: format!("n{index}@h"), ..NodeView::default() };
        ClusterView { now_ms: 7, nodes: (0..nodes).map(node).collect() }
    }

    fn join(parts: Vec<ViewPart>) -> Option<ClusterView> {
        let mut joined = ViewParts::default();
        parts.into_iter().map(|part| joined.add(part).expect("in order")).last().flatten()
    }

    #[test]
    fn a_view_of_any_size_is_unchanged_after_splitting_and_assembling() {
        for nodes in [0, 1, PER_PART, PER_PART + 1, 1_000] {
            assert_eq!(join(ViewPart::split(DrainId(1), view(nodes))), Some(view(nodes)));
        }
    }

    #[test]
    fn a_part_out_of_order_or_twice_discards_the_incomplete_view() {
        let parts = ViewPart::split(DrainId(1), view(300));
        let mut joined = ViewParts::default();
        assert!(joined.add(parts[1].clone()).is_err(), "no first part");
        assert!(joined.add(parts[0].clone()).expect("first").is_none());
        assert!(joined.add(parts[2].clone()).is_err(), "a hole");
        assert!(joined.add(parts[1].clone()).is_err(), "the first part is gone");
        assert_eq!(join(parts), Some(view(300)), "and a fresh start works");
    }

    #[test]
    fn a_few_nodes_with_endless_lists_are_refused() {
        let mut joined = ViewParts::default();
        let env = vec![("name".to_owned(), "v".repeat(4_000)); 100];
        let nodes = vec![NodeView { env, ..NodeView::default() }; 10];
        let most = MAX_BYTES / (10 * 100 * 4_000);
        let mut add = |part: usize| {
            let part = u32::try_from(part).expect("fits");
            joined.add(ViewPart { id: DrainId(1), part, parts: 1_000, now_ms: 0, nodes: nodes.clone() })
        };
        let refused = (1..=most + 1).find_map(|part| add(part).err());
        assert!(matches!(refused, Some(Error::TooMany { what: "bytes of a view", .. })), "{refused:?}");
    }

    #[test]
    fn endless_parts_are_refused() {
        let mut joined = ViewParts::default();
        let nodes = view(PER_PART).nodes;
        let add = |joined: &mut ViewParts, part| {
            joined.add(ViewPart { id: DrainId(1), part, parts: u32::MAX, now_ms: 0, nodes: nodes.clone() })
        };
        let most = u32::try_from(MAX_NODES / PER_PART).expect("fits");
        (1..=most).for_each(|part| assert!(add(&mut joined, part).expect("below the limit").is_none()));
        assert!(matches!(add(&mut joined, most + 1), Err(Error::TooMany { .. })));
    }
}
