//! What the nodes of a run are started with: one `elixir`, or several that take turns, for clusters of
//! several releases.
//!
//! A command brings its own code path (compiled code of one Elixir is of no use to another): a script that
//! sets `ERL_LIBS` and runs that Elixir, as `integration/mixed` writes them.

use serde::Serialize;

/// The command of a run that names none.
pub const USUAL: &str = "elixir";

/// The commands that start nodes, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Releases(Vec<String>);

impl Releases {
    /// These commands; [`USUAL`] where none is given.
    pub fn new(given: &[String]) -> Self {
        Self(if given.is_empty() { vec![USUAL.to_owned()] } else { given.to_vec() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there are several.
    pub fn are_mixed(&self) -> bool {
        self.0.len() > 1
    }

    /// For a node of release `generation`, from 1: a rolling deploy goes from the first command to the last.
    pub fn of_generation(&self, generation: u32) -> String {
        self.0[(generation.saturating_sub(1) as usize).min(self.0.len() - 1)].clone()
    }

    /// For application node number `index` where nodes take turns.
    pub fn in_turn(&self, index: usize) -> String {
        self.0[index % self.0.len()].clone()
    }

    /// For the clients' node.
    pub fn client(&self) -> String {
        self.in_turn(0)
    }

    /// For the node that plays the store.
    pub fn store(&self) -> String {
        self.in_turn(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_turns_and_a_rolling_deploy_goes_from_the_first_to_the_last() {
        let releases = Releases::new(&["classic".to_owned(), "modern".to_owned()]);
        assert_eq!([0, 1, 2].map(|index| releases.in_turn(index)), ["classic", "modern", "classic"]);
        assert_eq!([1, 2, 3].map(|generation| releases.of_generation(generation)), ["classic", "modern", "modern"]);
        assert_eq!((releases.client(), releases.store()), ("classic".into(), "modern".into()));
    }

    #[test]
    fn without_commands_every_node_is_the_elixir_of_the_path() {
        let releases = Releases::new(&[]);
        assert_eq!([releases.of_generation(2), releases.in_turn(1), releases.client(), releases.store()], [USUAL; 4]);
        assert!(!releases.are_mixed());
    }
}
