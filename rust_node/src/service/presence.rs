//! Tracks which agents know this node.
//!
//! Guarantee: this node announces itself to every connected, visible node when that node connects, and every
//! two seconds until its agent answers. When the agent ends, the announcements start again.

use std::collections::BTreeMap;
use std::sync::Arc;

use etf::Pid;
use handoff_core::time::Micros;

/// The interval of announcements to a node whose agent has not answered.
const AGAIN: Micros = Micros::from_millis(2_000);

#[derive(Debug)]
enum Stage {
    /// The node was announced to at this time, and its agent has not answered.
    Announced(Micros),
    Welcome(Agent),
}

/// An agent that knows this node.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub pid: Pid,
    /// The release of the library.
    pub release: String,
}

#[derive(Debug, Default)]
pub struct Presence {
    peers: BTreeMap<Arc<str>, Stage>,
}

impl Presence {
    /// Records that a node has connected. This node will announce itself to it.
    pub fn add_node(&mut self, now: Micros, peer: Arc<str>) {
        self.peers.insert(peer, Stage::Announced(now));
    }

    pub fn remove_node(&mut self, peer: &str) {
        self.peers.remove(peer);
    }

    /// Records that an agent has answered. Returns true when the agent is new and must be monitored.
    pub fn add_agent(&mut self, peer: &str, agent: Agent) -> bool {
        match self.peers.get_mut(peer) {
            Some(Stage::Welcome(known)) if *known == agent => false,
            Some(stage) => {
                *stage = Stage::Welcome(agent);
                true
            }
            None => false,
        }
    }

    /// Records that an agent has ended. Returns true when it was the known one, so that announcements start
    /// again: the next agent may have answered before.
    pub fn remove_agent(&mut self, now: Micros, peer: &str, pid: &Pid) -> bool {
        let stage = self.peers.get_mut(peer);
        let ended = stage.filter(|stage| matches!(stage, Stage::Welcome(known) if known.pid == *pid));
        ended.map(|stage| *stage = Stage::Announced(now)).is_some()
    }

    /// Returns the nodes to announce to now, and records the time.
    pub fn take_due(&mut self, now: Micros) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        for (peer, stage) in &mut self.peers {
            if let Stage::Announced(at) = stage
                && now.since(*at) >= AGAIN
            {
                *at = now;
                due.push(Arc::clone(peer));
            }
        }
        due
    }

    /// When [`Presence::take_due`] next returns a node.
    pub fn wake(&self) -> Option<Micros> {
        let announced = self.peers.values().filter_map(|stage| match stage {
            Stage::Announced(at) => Some(*at + AGAIN),
            Stage::Welcome(_) => None,
        });
        announced.min()
    }

    pub fn agents(&self) -> impl Iterator<Item = (&Arc<str>, &Agent)> {
        self.peers.iter().filter_map(|(peer, stage)| match stage {
            Stage::Welcome(agent) => Some((peer, agent)),
            Stage::Announced(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Micros = Micros::from_millis;

    fn agent(id: u32) -> Agent {
        Agent { pid: Pid::new("a@h", id, 0, 1), release: "0.1.0".to_owned() }
    }

    #[test]
    fn a_node_gets_announcements_until_its_agent_answers_and_again_when_the_agent_ends() {
        let mut presence = Presence::default();
        presence.add_node(MS(0), "a@h".into());
        assert_eq!(presence.take_due(MS(1_999)).len(), 0);
        assert_eq!(presence.take_due(MS(2_000)).len(), 1);
        assert_eq!(presence.wake(), Some(MS(4_000)));
        assert!(presence.add_agent("a@h", agent(1)));
        assert!(!presence.add_agent("a@h", agent(1)), "the same again");
        assert_eq!((presence.take_due(MS(9_000)).len(), presence.wake(), presence.agents().count()), (0, None, 1));
        assert!(presence.remove_agent(MS(9_000), "a@h", &agent(1).pid));
        assert_eq!(presence.take_due(MS(11_000)).len(), 1);
    }

    #[test]
    fn a_new_agent_stays_known_when_the_end_of_the_earlier_one_arrives_late() {
        let mut presence = Presence::default();
        presence.add_node(MS(0), "a@h".into());
        assert!(presence.add_agent("a@h", agent(1)) && presence.add_agent("a@h", agent(2)));
        assert!(!presence.remove_agent(MS(1), "a@h", &agent(1).pid));
        assert_eq!(presence.agents().map(|(_, agent)| agent.pid.id).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_node_that_is_gone_gets_no_announcement() {
        let mut presence = Presence::default();
        presence.add_node(MS(0), "a@h".into());
        presence.remove_node("a@h");
        assert_eq!((presence.take_due(MS(9_000)).len(), presence.add_agent("a@h", agent(1))), (0, false));
    }
}
