//! Tiers of nodes by how likely they are to outlive the current deploy, so that a rolling deploy does not
//! move a server from each old node to the next.
//!
//! Guarantee: a tier only orders eligible nodes and never excludes one. A node of unknown age and release,
//! such as one without this library, is [`Tier::Same`].
//!
//! In a rolling deploy every node of the old release will stop soon. A server that is sent to one of them
//! moves again minutes later. A node that started after the source and runs another release can keep the
//! server.

use crate::config::{Prefer, Source};
use crate::view::NodeView;

/// A node younger than this belongs to the current deploy, an older one to an earlier deploy. The limit is
/// longer than the slowest node of a rolling deploy needs, and short enough to exclude a restart of
/// yesterday.
pub const FRESH_FOR_MS: i64 = 15 * 60 * 1_000;

/// How likely a node is to outlive this deploy. Lower comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The node started after the source and runs another release; or, where releases are unknown or equal,
    /// is younger than [`FRESH_FOR_MS`] while the source is not. (Nodes that started in the same minute are
    /// equal: the first one must not get every server.)
    Fresh,
    /// Neither `Fresh` nor `Old`.
    Same,
    /// The node started before the source and runs another release, so it is older and will be replaced next.
    Old,
}

/// The tier of `node` as seen by `source` at `now_ms` (wall clock of the source).
pub fn tier(prefer: Prefer, source: &Source, node: &NodeView, now_ms: i64) -> Tier {
    let (Prefer::NewRelease, Some(ours), Some(theirs)) = (prefer, source.started_at_ms, node.started_at_ms) else {
        return Tier::Same;
    };
    let another_release = matches!((&source.generation, &node.generation), (Some(a), Some(b)) if a != b);
    let young = |started_at_ms| now_ms.saturating_sub(started_at_ms) < FRESH_FOR_MS;
    if theirs > ours && (another_release || (young(theirs) && !young(ours))) {
        Tier::Fresh
    } else if theirs < ours && another_release {
        Tier::Old
    } else {
        Tier::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 100 * 60 * 1_000;

    fn tier_of(started_at_ms: Option<i64>, generation: Option<&str>) -> Tier {
        let source =
            Source { name: "s@h".into(), started_at_ms: Some(1_000), generation: Some("1".into()), region: None };
        let node = NodeView { started_at_ms, generation: generation.map(str::to_owned), ..NodeView::default() };
        tier(Prefer::NewRelease, &source, &node, NOW)
    }

    #[test]
    fn a_node_started_after_the_source_with_another_release_is_fresh_at_any_age() {
        assert_eq!(tier_of(Some(2_000), Some("2")), Tier::Fresh);
    }

    #[test]
    fn a_node_started_after_the_source_with_the_same_release_is_fresh_only_while_young() {
        assert_eq!(tier_of(Some(NOW - FRESH_FOR_MS + 1), Some("1")), Tier::Fresh);
        assert_eq!(tier_of(Some(NOW - FRESH_FOR_MS), Some("1")), Tier::Same);
        assert_eq!(tier_of(Some(NOW - 5), None), Tier::Fresh);
    }

    #[test]
    fn nodes_that_started_together_with_the_source_are_equal_in_any_order() {
        let source = Source { started_at_ms: Some(NOW - 1_000), ..Source::default() };
        for started_at_ms in [NOW - 1_100, NOW - 900] {
            let node = NodeView { started_at_ms: Some(started_at_ms), ..NodeView::default() };
            assert_eq!(tier(Prefer::NewRelease, &source, &node, NOW), Tier::Same);
        }
    }

    #[test]
    fn a_node_started_before_the_source_with_another_release_comes_last() {
        assert_eq!(tier_of(Some(500), Some("0")), Tier::Old);
        assert_eq!(tier_of(Some(500), Some("1")), Tier::Same);
    }

    #[test]
    fn a_node_without_the_library_is_neither_fresh_nor_old() {
        assert_eq!(tier_of(None, None), Tier::Same);
        assert_eq!(tier_of(None, Some("2")), Tier::Same);
    }
}
