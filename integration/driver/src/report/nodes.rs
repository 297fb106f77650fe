//! The application nodes of a run, and whether the cluster was mixed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::releases::Releases;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    pub node: String,
    pub elixir: String,
    pub otp: String,
    /// Servers that started on it, over the whole run.
    pub started: usize,
}

impl NodeReport {
    pub fn release(&self) -> String {
        format!("Elixir {}, OTP {}", self.elixir, self.otp)
    }
}

/// The number of servers started on each release, over all of its nodes.
pub fn started_on(nodes: &[NodeReport]) -> BTreeMap<String, usize> {
    nodes.iter().fold(BTreeMap::new(), |mut started, node| {
        *started.entry(node.release()).or_default() += node.started;
        started
    })
}

/// Why a run with several commands was not mixed: two are the same release, or no server ran on one of them.
pub fn not_mixed(releases: &Releases, nodes: &[NodeReport]) -> Option<String> {
    if !releases.are_mixed() {
        return None;
    }
    let started = started_on(nodes);
    if started.len() < releases.count() {
        let found = started.into_keys().collect::<Vec<_>>().join(" and ");
        return Some(format!("--beams names {} commands, but application nodes ran on {found} only", releases.count()));
    }
    let idle = started.iter().find(|(_, started)| **started == 0)?.0;
    Some(format!("no server ever started on {idle}, so the run shows nothing of it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(elixir: &str, otp: &str, started: usize) -> NodeReport {
        NodeReport { node: format!("on{otp}"), elixir: elixir.into(), otp: otp.into(), started }
    }

    #[test]
    fn a_run_in_which_a_release_ran_no_server_is_not_mixed() {
        let mixed = Releases::new(&["classic".to_owned(), "modern".to_owned()]);
        let reason = |nodes: &[NodeReport]| not_mixed(&mixed, nodes);
        assert_eq!(reason(&[node("1.14.0", "25", 100), node("1.20.1", "29", 40)]), None);
        let one = reason(&[node("1.14.0", "25", 100), node("1.14.0", "25", 40)]).unwrap();
        assert!(one.contains("2 commands") && one.contains("Elixir 1.14.0, OTP 25 only"), "{one}");
        let idle = reason(&[node("1.14.0", "25", 100), node("1.20.1", "29", 0)]).unwrap();
        assert!(idle.contains("no server ever started on Elixir 1.20.1, OTP 29"), "{idle}");
        assert_eq!(not_mixed(&Releases::new(&[]), &[node("1.14.0", "25", 3)]), None);
    }
}
