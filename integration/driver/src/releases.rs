//! The commands that start the nodes of a run: one `elixir`, or several in turn, for mixed clusters.
//!
//! A command sets its own code path (compiled code of one Elixir is of no use to another): a script that sets
//! `ERL_LIBS` and runs that Elixir, as `integration/mixed` writes them.

use serde::Serialize;

pub const USUAL: &str = "elixir";

/// The commands that start nodes, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Releases(Vec<String>);

impl Releases {
    /// These commands, or [`USUAL`] if `given` is empty.
    pub fn new(given: &[String]) -> Self {
        Self(if given.is_empty() { vec![USUAL.to_owned()] } else { given.to_vec() })
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn are_mixed(&self) -> bool {
        self.0.len() > 1
    }

    /// The command for a node of release `generation`, counted from 1. Each release uses the next command;
    /// when there are no more, the last one.
    pub fn of_generation(&self, generation: u32) -> String {
        self.0[(generation.saturating_sub(1) as usize).min(self.0.len() - 1)].clone()
    }

    /// The command for application node number `index` where commands are used in turn.
    pub fn in_turn(&self, index: usize) -> String {
        self.0[index % self.0.len()].clone()
    }

    pub fn client(&self) -> String {
        self.in_turn(0)
    }

    pub fn store(&self) -> String {
        self.in_turn(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_used_in_turn_and_a_rolling_deploy_goes_from_the_first_to_the_last() {
        let releases = Releases::new(&["classic".to_owned(), "modern".to_owned()]);
        assert_eq!([0, 1, 2].map(|index| releases.in_turn(index)), ["classic", "modern", "classic"]);
        assert_eq!([1, 2, 3].map(|generation| releases.of_generation(generation)), ["classic", "modern", "modern"]);
        assert_eq!((releases.client(), releases.store()), ("classic".into(), "modern".into()));
    }

    #[test]
    fn nodes_use_the_elixir_of_the_path_without_commands() {
        let releases = Releases::new(&[]);
        assert_eq!([releases.of_generation(2), releases.in_turn(1), releases.client(), releases.store()], [USUAL; 4]);
        assert!(!releases.are_mixed());
    }
}
