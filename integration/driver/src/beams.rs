//! What the nodes of a run are started with: one `elixir`, or several that take turns, for clusters of different releases.
//!
//! A command brings its own code path (compiled code of one Elixir is of no use to another): a script that sets `ERL_LIBS` and runs that
//! Elixir, as `integration/mixed` writes them. A run with several fails when one of them ran no server, or when two are the same release:
//! a cluster that was meant to be mixed and is not must not pass.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::NodeReport;
use crate::settings::Scenario;

/// The command of a run that says nothing else.
pub const USUAL: &str = "elixir";

/// The commands that start nodes, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Beams(Vec<String>);

impl Beams {
    /// These commands; [`USUAL`] where none is given.
    pub fn new(given: &[String]) -> Self {
        Self(if given.is_empty() { vec![USUAL.to_owned()] } else { given.to_vec() })
    }

    /// Whether there are several.
    pub fn are_mixed(&self) -> bool {
        self.0.len() > 1
    }

    /// For application node number `index`, of release `generation`: a rolling deploy is the way from the first to the last, otherwise nodes
    /// take turns.
    pub fn app(&self, scenario: Scenario, generation: u32, index: usize) -> String {
        let turn = match scenario {
            Scenario::Rolling => (generation.saturating_sub(1) as usize).min(self.0.len() - 1),
            Scenario::Drain | Scenario::Together => index % self.0.len(),
        };
        self.0[turn].clone()
    }

    /// For the clients' node.
    pub fn client(&self) -> String {
        self.0[0].clone()
    }

    /// For the node that plays the store.
    pub fn store(&self) -> String {
        self.0[self.0.len() - 1].clone()
    }

    /// Why a run was not the mixed one it was meant to be, if so.
    pub fn missing(&self, nodes: &[NodeReport]) -> Option<String> {
        let releases = releases(nodes);
        let idle = releases.iter().find(|(_, started)| **started == 0).map(|(release, _)| release);
        let found = || releases.keys().cloned().collect::<Vec<_>>().join(" and ");
        if !self.are_mixed() {
            None
        } else if releases.len() < self.0.len() {
            Some(format!("--beams names {} commands, but application nodes ran on {} only", self.0.len(), found()))
        } else {
            idle.map(|release| format!("no server ever started on {release}, so the run shows nothing of it"))
        }
    }
}

/// How many servers have started on each release, over all nodes on it.
pub fn releases(nodes: &[NodeReport]) -> BTreeMap<String, usize> {
    nodes.iter().fold(BTreeMap::new(), |mut releases, node| {
        *releases.entry(node.release()).or_default() += node.started;
        releases
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beams() -> Beams {
        Beams::new(&["classic".to_owned(), "modern".to_owned()])
    }

    fn node(elixir: &str, otp: &str, started: usize) -> NodeReport {
        NodeReport { node: format!("on{otp}"), elixir: elixir.into(), otp: otp.into(), started }
    }

    #[test]
    fn nodes_take_turns_and_a_rolling_deploy_goes_from_the_first_to_the_last() {
        let apps = |scenario, generation| [0, 1, 2].map(|index| beams().app(scenario, generation, index));
        assert_eq!(apps(Scenario::Drain, 1), ["classic", "modern", "classic"]);
        assert_eq!(apps(Scenario::Rolling, 1), ["classic"; 3]);
        assert_eq!(apps(Scenario::Rolling, 2), ["modern"; 3]);
        assert_eq!((beams().client(), beams().store()), ("classic".into(), "modern".into()));
    }

    #[test]
    fn without_commands_every_node_is_the_elixir_of_the_path() {
        let beams = Beams::new(&[]);
        assert_eq!(
            (beams.app(Scenario::Rolling, 2, 1), beams.client(), beams.store()),
            (USUAL.into(), USUAL.into(), USUAL.into())
        );
        assert_eq!(beams.missing(&[node("1.14.0", "25", 3)]), None);
    }

    #[test]
    fn a_run_in_which_a_release_had_no_part_is_not_mixed() {
        let both = [node("1.14.0", "25", 100), node("1.20.1", "29", 40)];
        assert_eq!(beams().missing(&both), None);
        let one = beams().missing(&[node("1.14.0", "25", 100), node("1.14.0", "25", 40)]).unwrap();
        assert!(one.contains("2 commands") && one.contains("Elixir 1.14.0, OTP 25 only"), "{one}");
        let idle = beams().missing(&[node("1.14.0", "25", 100), node("1.20.1", "29", 0)]).unwrap();
        assert!(idle.contains("no server ever started on Elixir 1.20.1, OTP 29"), "{idle}");
    }
}
