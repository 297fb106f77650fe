//! The configuration of one drain: its limits, its policies, and the source.
//!
//! Guarantee: [`Config::validate`] reports every problem at once, each naming the field, what it got and what
//! it takes; with a validated configuration the engine cannot divide by zero or wait for ever.

use crate::limiter::{Concurrency, Learnt};

/// The largest tolerance of a rebalance. A node then moves servers only above eleven times its share.
pub const MAX_TOLERANCE: f64 = 10.0;
/// The highest limit of starts per second of a drain or a rebalance.
pub const MAX_PER_SECOND: u32 = 10_000;

/// The most servers of one drain. Ids are `u32`; larger drains reach other limits first.
pub const MAX_SERVERS: usize = 10_000_000;
/// The longest drain: one day. This is far above any shutdown budget, and small enough that sums of times
/// never overflow.
pub const MAX_TIMEOUT_MS: u64 = 86_400_000;
/// The highest limit of attempts in flight.
pub const MAX_CONCURRENCY: u32 = 10_000;

/// The goal of a session of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Goal {
    /// Every server leaves the source.
    #[default]
    Drain,
    /// The source keeps its share of all servers, see [`crate::balance`].
    Rebalance,
}

impl Goal {
    /// Every goal.
    pub const ALL: [Goal; 2] = [Goal::Drain, Goal::Rebalance];

    /// The name, the same in every language.
    pub const fn name(self) -> &'static str {
        match self {
            Goal::Drain => "drain",
            Goal::Rebalance => "rebalance",
        }
    }
}

/// How sticky placement counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum StickyPolicy {
    /// As in DurableServer: a level is open when the delays of the levels before it have passed. For a
    /// running server that means: only when the sum of these delays is zero.
    Gated,
    /// All levels are open, and better levels come first. A node that matches no level stays closed.
    AnyLevel,
    /// Sticky rules are ignored.
    Ignore,
}

/// Whether nodes of the new release come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Prefer {
    /// Freshness tiers, see [`crate::freshness`].
    NewRelease,
    /// All nodes are equal.
    None,
}

/// One level of a sticky signature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum StickyLevel {
    /// The node's environment variable `name` must have the same value as on the source. `None` means that
    /// the variable is not set on the source; then no node matches.
    Env {
        /// The variable.
        name: String,
        /// Its value on the source.
        value: Option<String>,
        /// How long a stopped server waits at this level before the next one opens.
        delay_ms: u64,
    },
    /// Any node.
    Any {
        /// As for `Env`. On the last level it has no effect.
        delay_ms: u64,
    },
}

impl StickyLevel {
    /// The delay of this level, whichever kind it is.
    pub fn delay_ms(&self) -> u64 {
        match self {
            StickyLevel::Env { delay_ms, .. } | StickyLevel::Any { delay_ms } => *delay_ms,
        }
    }
}

/// The node whose servers are moved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Source {
    /// Its node name, `name@host`.
    pub name: String,
    /// When its supervisor started, wall-clock milliseconds.
    pub started_at_ms: Option<i64>,
    /// The release it runs.
    pub generation: Option<String>,
    /// Its placement region.
    pub region: Option<String>,
}

/// The configuration of one drain or rebalance.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    /// Its goal.
    #[cfg_attr(feature = "serde", serde(default))]
    pub goal: Goal,
    /// How far a node may differ from its share before servers are moved, as a fraction of the share. Only
    /// for a rebalance.
    #[cfg_attr(feature = "serde", serde(default = "default_tolerance"))]
    pub tolerance: f64,
    /// A node with fewer servers moves none. Only for a rebalance.
    #[cfg_attr(feature = "serde", serde(default = "default_min_servers"))]
    pub min_servers: u32,
    /// How many servers may begin to move per second; `None` means no limit. Further attempts for the same
    /// server do not count.
    #[cfg_attr(feature = "serde", serde(default))]
    pub max_per_second: Option<u32>,
    /// The highest limit of attempts in flight.
    pub max_concurrency: u32,
    /// Whether the limiter may search for a lower limit than the ceiling.
    pub concurrency: Concurrency,
    /// The result of the limiter's search in an earlier drain on the same store.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub learnt: Option<Learnt>,
    /// The highest number of attempts in flight to one target.
    pub max_concurrency_per_target: Option<u32>,
    /// The time limit of the drain in milliseconds.
    pub timeout_ms: u64,
    /// The time limit of one attempt in milliseconds. No attempt runs past the deadline.
    pub attempt_timeout_ms: u64,
    /// The most attempts for one server.
    pub max_attempts: u32,
    /// This many consecutive failures end the drain.
    pub max_consecutive_failures: u32,
    /// A larger ratio of failures among the latest attempts ends the drain. A value of 1.0 never does.
    pub max_failure_ratio: f64,
    /// How long to wait without a target, in milliseconds: for the first one, and again whenever the last one
    /// is lost.
    pub wait_for_target_ms: u64,
    /// How long to wait without a target while a node that could be one is known but not connected, in
    /// milliseconds.
    #[cfg_attr(feature = "serde", serde(default))]
    pub wait_for_lost_ms: u64,
    /// How sticky placement is honoured.
    pub sticky: StickyPolicy,
    /// Whether nodes of the new release come first.
    pub prefer: Prefer,
    /// The node whose servers are moved.
    pub source: Source,
    /// The sticky signatures that servers refer to. An empty signature is no constraint.
    pub stickies: Vec<Vec<StickyLevel>>,
    /// The number of modules that servers refer to.
    pub modules: u32,
    /// A heartbeat older than this (milliseconds) is stale (DurableServer's rule 2).
    pub max_age_ms: i64,
    /// A heartbeat whose stamp is further in the future than this (milliseconds) is ignored (DurableServer's
    /// rule 2).
    pub future_skew_ms: i64,
}

/// One server in twenty. Smaller differences arise when servers start and end.
const fn default_tolerance() -> f64 {
    0.05
}

/// With fewer servers, a difference of one exceeds the default tolerance.
const fn default_min_servers() -> u32 {
    20
}

impl Default for Config {
    fn default() -> Self {
        Config {
            goal: Goal::Drain,
            tolerance: default_tolerance(),
            min_servers: default_min_servers(),
            max_per_second: None,
            max_concurrency: 50,
            concurrency: Concurrency::Adaptive,
            learnt: None,
            max_concurrency_per_target: None,
            timeout_ms: 30_000,
            attempt_timeout_ms: 15_000,
            max_attempts: 3,
            max_consecutive_failures: 10,
            max_failure_ratio: 0.5,
            wait_for_target_ms: 0,
            wait_for_lost_ms: 0,
            sticky: StickyPolicy::Gated,
            prefer: Prefer::NewRelease,
            source: Source::default(),
            stickies: vec![Vec::new()],
            modules: 1,
            max_age_ms: 50_000,
            future_skew_ms: 5_000,
        }
    }
}

/// A number of the configuration with its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// Its field.
    pub name: &'static str,
    /// The value, if it is set.
    pub value: Option<u64>,
    /// The smallest it may be.
    pub low: u64,
    /// The largest it may be.
    pub high: u64,
}

impl Config {
    /// The numbers that have a range. The Elixir library compares the ranges of its options with these.
    pub fn numbers(&self) -> [Number; 10] {
        let number = |name, value, low, high| Number { name, value, low, high };
        let count = |value: u32| Some(u64::from(value));
        let per_target = self.max_concurrency_per_target.and_then(count);
        let per_second = self.max_per_second.and_then(count);
        [
            number("max_concurrency", count(self.max_concurrency), 1, MAX_CONCURRENCY.into()),
            number("max_concurrency_per_target", per_target, 1, MAX_CONCURRENCY.into()),
            number("timeout_ms", Some(self.timeout_ms), 1, MAX_TIMEOUT_MS),
            number("attempt_timeout_ms", Some(self.attempt_timeout_ms), 1, MAX_TIMEOUT_MS),
            number("max_attempts", count(self.max_attempts), 1, 100),
            number("max_consecutive_failures", count(self.max_consecutive_failures), 1, 1_000_000),
            number("wait_for_target_ms", Some(self.wait_for_target_ms), 0, MAX_TIMEOUT_MS),
            number("wait_for_lost_ms", Some(self.wait_for_lost_ms), 0, MAX_TIMEOUT_MS),
            number("min_servers", count(self.min_servers), 0, MAX_SERVERS as u64),
            number("max_per_second", per_second, 1, MAX_PER_SECOND.into()),
        ]
    }

    /// Checks every field, and the fields against each other.
    ///
    /// # Errors
    /// One sentence for each problem, always for all of them.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        for Number { name, value, low, high } in self.numbers() {
            if value.is_some_and(|got| got < low || got > high) {
                problems.push(format!("{name}: got {}, takes {low} to {high}", value.unwrap_or_default()));
            }
        }
        if !(self.max_failure_ratio > 0.0 && self.max_failure_ratio <= 1.0) {
            problems.push(format!(
                "max_failure_ratio: got {}, takes a number above 0.0 and at most 1.0",
                self.max_failure_ratio
            ));
        }
        if !(self.tolerance > 0.0 && self.tolerance <= MAX_TOLERANCE) {
            problems.push(format!(
                "tolerance: got {}, takes a number above 0.0 and at most {MAX_TOLERANCE:.1}",
                self.tolerance
            ));
        }
        if self.source.name.is_empty() {
            problems.push("source name: got an empty string, takes a node name".to_owned());
        }
        if self.stickies.iter().any(|levels| levels.len() > 64) {
            problems.push("stickies: a signature has more than 64 levels".to_owned());
        }
        if self.max_age_ms <= 0 || self.future_skew_ms < 0 {
            problems.push("max_age_ms and future_skew_ms: take a positive age and a skew of 0 or more".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_not_only_the_first() {
        let config = Config {
            max_concurrency: 0,
            timeout_ms: 0,
            max_failure_ratio: f64::NAN,
            source: Source::default(),
            ..Config::default()
        };
        let problems = config.validate().expect_err("four fields are wrong");
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems.iter().any(|problem| problem.starts_with("timeout_ms: got 0, takes 1 to")));
    }

    #[test]
    fn the_defaults_with_a_source_are_valid() {
        let source = Source { name: "a@h".into(), ..Source::default() };
        assert_eq!(Config { source, ..Config::default() }.validate(), Ok(()));
    }
}
