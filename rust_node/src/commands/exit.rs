//! The exit codes of the commands, for scripts.
//!
//! Guarantee: a code keeps its meaning (a test pins them), and `--help` lists all of them.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Settings = 2,
    Unreachable = 3,
    Findings = 4,
    Left = 5,
    Refused = 6,
    Lost = 7,
    Interrupted = 130,
}

impl Exit {
    /// Each exit code with its description in `--help`.
    pub const ALL: [(Exit, &str); 9] = [
        (Exit::Done, "done: every server moved (or would), or stopped by a signal"),
        (Exit::Failed, "failed while it ran"),
        (Exit::Settings, "a flag or a setting is wrong"),
        (
            Exit::Unreachable,
            "a node could not be reached; nodes and rebalance ignore those that only DNS names, if one was reached",
        ),
        (Exit::Findings, "the audit found something"),
        (
            Exit::Left,
            "the drain or rebalance left servers that were to move; those that had ended by themselves do not count",
        ),
        (Exit::Refused, "the node refuses what it was asked for, or does not run durable_handoff"),
        (Exit::Lost, "the node was lost before it answered; what was asked for may go on there"),
        (Exit::Interrupted, "interrupted; what was asked for goes on"),
    ];

    /// The worse of the codes of two nodes: a lost node before a refusal, and that before servers that were left.
    pub fn worse(self, other: Exit) -> Exit {
        let order = [Exit::Lost, Exit::Unreachable, Exit::Refused, Exit::Left];
        order.into_iter().find(|exit| [self, other].contains(exit)).unwrap_or(Exit::Done)
    }

    /// The list of exit codes for `--help`.
    pub fn help() -> String {
        let line = |(exit, text): (Exit, &str)| format!("  {:>3}  {text}\n", exit as u8);
        format!("Exit codes:\n{}", Exit::ALL.map(line).concat().trim_end())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_node_is_worse_than_a_refusal_and_that_than_servers_that_were_left() {
        assert_eq!(Exit::Lost.worse(Exit::Refused), Exit::Lost);
        assert_eq!((Exit::Left.worse(Exit::Refused), Exit::Done.worse(Exit::Left)), (Exit::Refused, Exit::Left));
    }

    #[test]
    fn exit_codes_keep_their_numbers_and_each_has_a_description() {
        let pinned: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| *exit as u8).collect();
        assert_eq!(pinned, [0, 1, 2, 3, 4, 5, 6, 7, 130]);
        assert_eq!(Exit::help().lines().count(), 10);
    }
}
