//! Who knows that this node is here.
//!
//! Guarantee: every connected, visible node is told when it connects and every two seconds until its agent answers; when the
//! agent ends, it is told again, for the next one.

use std::collections::BTreeMap;
use std::sync::Arc;

use etf::Pid;
use handoff_core::time::Micros;

/// Until an agent has answered.
const AGAIN: Micros = Micros::from_millis(2_000);

#[derive(Debug)]
enum Stage {
    /// Told then.
    Told(Micros),
    /// Its agent has answered.
    Welcome(Agent),
}

/// An agent that knows this node.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its pid.
    pub pid: Pid,
    /// The library's release.
    pub release: String,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Presence {
    peers: BTreeMap<Arc<str>, Stage>,
}

impl Presence {
    /// A node has connected; tell it.
    pub fn connected(&mut self, now: Micros, peer: Arc<str>) {
        self.peers.insert(peer, Stage::Told(now));
    }

    /// A node is gone.
    pub fn disconnected(&mut self, peer: &str) {
        self.peers.remove(peer);
    }

    /// An agent has answered. True when it is not the one known already, and is to be monitored.
    pub fn welcomed(&mut self, peer: &str, agent: Agent) -> bool {
        match self.peers.get_mut(peer) {
            Some(Stage::Welcome(known)) if *known == agent => false,
            Some(stage) => {
                *stage = Stage::Welcome(agent);
                true
            }
            None => false,
        }
    }

    /// An agent has ended. True when it was the one that is known, and the node is to be told again: the next one may have
    /// answered before.
    pub fn agent_down(&mut self, now: Micros, peer: &str, pid: &Pid) -> bool {
        let stage = self.peers.get_mut(peer);
        let ended = stage.filter(|stage| matches!(stage, Stage::Welcome(known) if known.pid == *pid));
        ended.map(|stage| *stage = Stage::Told(now)).is_some()
    }

    /// The nodes to be told again now.
    pub fn due(&mut self, now: Micros) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        for (peer, stage) in &mut self.peers {
            if let Stage::Told(at) = stage
                && now.since(*at) >= AGAIN
            {
                *at = now;
                due.push(Arc::clone(peer));
            }
        }
        due
    }

    /// When [`Presence::due`] has something next.
    pub fn wake(&self) -> Option<Micros> {
        let told = self.peers.values().filter_map(|stage| match stage {
            Stage::Told(at) => Some(*at + AGAIN),
            Stage::Welcome(_) => None,
        });
        told.min()
    }

    /// The agents that know this node.
    pub fn agents(&self) -> impl Iterator<Item = (&Arc<str>, &Agent)> {
        self.peers.iter().filter_map(|(peer, stage)| match stage {
            Stage::Welcome(agent) => Some((peer, agent)),
            Stage::Told(_) => None,
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
    fn a_node_is_told_until_its_agent_answers_and_again_when_it_ends() {
        let mut presence = Presence::default();
        presence.connected(MS(0), "a@h".into());
        assert_eq!(presence.due(MS(1_999)).len(), 0);
        assert_eq!(presence.due(MS(2_000)).len(), 1);
        assert_eq!(presence.wake(), Some(MS(4_000)));
        assert!(presence.welcomed("a@h", agent(1)));
        assert!(!presence.welcomed("a@h", agent(1)), "the same again");
        assert_eq!((presence.due(MS(9_000)).len(), presence.wake(), presence.agents().count()), (0, None, 1));
        assert!(presence.agent_down(MS(9_000), "a@h", &agent(1).pid));
        assert_eq!(presence.due(MS(11_000)).len(), 1);
    }

    #[test]
    fn an_agent_stays_known_when_the_one_before_it_is_heard_to_have_ended() {
        let mut presence = Presence::default();
        presence.connected(MS(0), "a@h".into());
        assert!(presence.welcomed("a@h", agent(1)) && presence.welcomed("a@h", agent(2)));
        assert!(!presence.agent_down(MS(1), "a@h", &agent(1).pid));
        assert_eq!(presence.agents().map(|(_, agent)| agent.pid.id).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_node_that_is_gone_is_not_told() {
        let mut presence = Presence::default();
        presence.connected(MS(0), "a@h".into());
        presence.disconnected("a@h");
        assert_eq!((presence.due(MS(9_000)).len(), presence.welcomed("a@h", agent(1))), (0, false));
    }
}
