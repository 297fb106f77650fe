//! The nodes' descriptions of themselves: release, age, servers, cordon.
//!
//! Guarantees
//! - Nodes are asked only while clients request the overview, at most every two seconds. No request waits for
//!   an answer.
//! - An answer that was not asked for is ignored. At most [`KEPT`] supervisors of each node are kept, and
//!   none is shown that is older than [`STALE`].
//! - All cordoned supervisors are counted, also those in a stale answer, because clients may request the overview
//!   rarely. A node whose answer is stale and that did not answer the last question is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use handoff_core::time::Micros;
use handoff_wire::{Description, SupervisorInfo};
use serde::{Deserialize, Serialize};

const KEPT: usize = 16;
const TEXT: usize = 200;
const AGAIN: Micros = Micros::from_millis(2_000);
const STALE: Micros = Micros::from_millis(30_000);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorLine {
    pub name: String,
    /// The release of the application.
    pub release: Option<String>,
    pub age_s: Option<i64>,
    pub servers: u64,
    /// Whether the supervisor accepts no servers, because its node is draining or cordoned.
    pub draining: bool,
    /// Whether that is a cordon without a drain, which can be undone now. Absent from releases without cordons.
    #[serde(default)]
    pub cordoned: Option<bool>,
}

impl SupervisorLine {
    /// `now_ms` is the time by the clock of the described node.
    pub fn new(info: SupervisorInfo, now_ms: i64) -> SupervisorLine {
        SupervisorLine {
            name: info.name,
            release: info.generation,
            age_s: info.started_at_ms.map(|started| now_ms.saturating_sub(started) / 1_000),
            servers: info.servers,
            draining: info.draining,
            cordoned: info.cordoned,
        }
    }

    pub fn state(&self) -> &'static str {
        match (self.cordoned, self.draining) {
            (Some(true), _) => "cordoned",
            (_, true) => "draining",
            (_, false) => "running",
        }
    }
}

#[derive(Debug, Default)]
pub struct Overview {
    asked_at: Option<Micros>,
    asked: BTreeSet<Arc<str>>,
    nodes: BTreeMap<Arc<str>, Answer>,
}

#[derive(Debug)]
struct Answer {
    at: Micros,
    /// Of all supervisors, those without a line included.
    cordoned: usize,
    lines: Vec<SupervisorLine>,
}

impl Overview {
    /// Whether the nodes should be asked now.
    pub fn is_due(&self, now: Micros) -> bool {
        self.asked_at.is_none_or(|at| now.since(at) >= AGAIN)
    }

    pub fn ask(&mut self, now: Micros, peers: BTreeSet<Arc<str>>) {
        self.asked_at = Some(now);
        let is_silent = |peer: &Arc<str>, answer: &Answer| self.asked.contains(peer) && now.since(answer.at) >= STALE;
        self.nodes.retain(|peer, answer| peers.contains(peer) && !is_silent(peer, answer));
        self.asked = peers;
    }

    /// Whether an answer of that node is outstanding.
    pub fn was_asked(&self, peer: &str) -> bool {
        self.asked.contains(peer)
    }

    pub fn take(&mut self, now: Micros, peer: &Arc<str>, description: Description) {
        if !self.asked.remove(peer) {
            return;
        }
        let now_ms = description.now_ms;
        let line = |info| {
            let mut line = SupervisorLine::new(info, now_ms);
            line.name = line.name.chars().take(TEXT).collect();
            line.release = line.release.map(|release| release.chars().take(TEXT).collect());
            line
        };
        let cordoned = description.supervisors.iter().filter(|info| info.cordoned == Some(true)).count();
        let lines = description.supervisors.into_iter().take(KEPT).map(line).collect();
        self.nodes.insert(Arc::clone(peer), Answer { at: now, cordoned, lines });
    }

    pub fn cordoned(&self) -> usize {
        self.nodes.values().map(|answer| answer.cordoned).sum()
    }

    /// The latest answers, by node.
    pub fn lines(&self, now: Micros) -> BTreeMap<String, Vec<SupervisorLine>> {
        let fresh = self.nodes.iter().filter(|(_, answer)| now.since(answer.at) < STALE);
        fresh.map(|(peer, answer)| (peer.to_string(), answer.lines.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use handoff_wire::RequestId;

    use super::*;

    const S: fn(u64) -> Micros = |seconds| Micros::from_millis(seconds * 1_000);

    fn description(supervisors: usize) -> Description {
        let info = SupervisorInfo {
            name: "Sup".repeat(1_000),
            generation: Some("1".to_owned()),
            started_at_ms: Some(1_000),
            servers: 7,
            draining: false,
            cordoned: Some(true),
        };
        let supervisors = vec![info; supervisors];
        Description { request: RequestId(1), release: "1".to_owned(), now_ms: 62_000, supervisors, knows: Vec::new() }
    }

    #[test]
    fn an_answer_is_shown_until_it_is_stale_and_ignored_if_it_was_not_asked_for() {
        let mut overview = Overview::default();
        let peer: Arc<str> = "a@h".into();
        overview.take(S(0), &peer, description(1));
        assert!(overview.lines(S(0)).is_empty() && overview.is_due(S(0)), "not asked");
        overview.ask(S(0), BTreeSet::from([Arc::clone(&peer)]));
        assert!(!overview.is_due(S(1)) && overview.is_due(S(2)));
        overview.take(S(1), &peer, description(100));
        assert!(!overview.was_asked(&peer), "answered already");
        let lines = &overview.lines(S(2))["a@h"];
        assert_eq!((lines.len(), lines[0].age_s, lines[0].name.len()), (KEPT, Some(61), TEXT));
        assert_eq!(lines[0].state(), "cordoned");
        assert!(overview.lines(S(31)).is_empty());
    }

    #[test]
    fn every_cordoned_supervisor_counts_until_its_node_answers_no_more() {
        let mut overview = Overview::default();
        let peer: Arc<str> = "a@h".into();
        let ask = |overview: &mut Overview, now| overview.ask(now, BTreeSet::from([Arc::clone(&peer)]));
        ask(&mut overview, S(0));
        overview.take(S(0), &peer, description(40));
        // Clients that ask less often than answers become stale.
        ask(&mut overview, S(60));
        assert_eq!(overview.cordoned(), 40, "it has not had the time to answer");
        overview.take(S(60), &peer, description(40));
        ask(&mut overview, S(75));
        ask(&mut overview, S(80));
        assert_eq!(overview.cordoned(), 40, "an answer may be late");
        ask(&mut overview, S(90));
        assert_eq!(overview.cordoned(), 0);
    }

    #[test]
    fn a_node_that_has_left_is_forgotten_when_the_others_are_asked_again() {
        let mut overview = Overview::default();
        let peer: Arc<str> = "a@h".into();
        overview.ask(S(0), BTreeSet::from([Arc::clone(&peer)]));
        overview.take(S(0), &peer, description(1));
        overview.ask(S(2), BTreeSet::new());
        assert!(overview.lines(S(2)).is_empty());
    }
}
