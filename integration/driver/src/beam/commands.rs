//! The commands to nodes, and how their answers are read.
//!
//! A command is `{Id, Name, Arguments}` with the arguments in a list; its answer is the `reply` event with
//! the same id.

use std::collections::BTreeMap;

use etf::{
    Term, atom_name, list, read_bytes, read_each, read_text, read_tuple, read_u32, read_value, tuple, uint, value,
};
use serde::{Serialize, Serializer};

use crate::history::Key;
use crate::settings::{CallKind, Synced};
use crate::{Error, Result};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Connect(Vec<String>),
    /// Which nodes' heartbeats does the node see? Answer: [`read_view`].
    View,
    /// Which Rust nodes may coordinate the node's drains? Answer: a list of names.
    Executors,
    /// Start servers `first`, `first + step`, ... below `end` here, nowhere else.
    StartServers {
        first: Key,
        step: u32,
        end: Key,
        /// Size of each state; `None` for the usual document.
        state_bytes: Option<u32>,
        synced: Synced,
        /// How long each takes to start.
        start_ms: u32,
        /// Whether half of them are of the kind that not every release has.
        newer: bool,
    },
    /// Which of servers `0..servers` does the registry of the node not know? Answer: [`read_missing`].
    Missing {
        servers: u32,
    },
    /// Start clients that call servers `0..servers`.
    StartClients {
        clients: u32,
        servers: u32,
        every_ms: u32,
        /// One in this many increments is stored before it is answered; 0 for none.
        sync_one_in: u32,
        /// What their calls do.
        kind: CallKind,
    },
    /// Stop the clients. Answer: [`read_calls`].
    StopClients,
    /// Ask every server for its counter; of those that do not answer, read the stored state. Answer:
    /// [`read_counters`].
    Counters {
        servers: u32,
    },
    /// Increment every server once. Answer: how many have not stored it.
    IncrementAll {
        servers: u32,
    },
    /// How many servers have a stored counter of at least `counter`?
    Stored {
        servers: u32,
        counter: u32,
    },
    ConfigureStore {
        /// Duration of one request.
        latency_ms: u32,
        /// Requests at once.
        #[serde(serialize_with = "or_infinity")]
        slots: Option<u32>,
        error_rate: f64,
        outage: Outage,
    },
    ResetStoreStats,
    /// The store's statistics. Answer: [`read_counts`].
    StoreStats,
    /// Send every record taken so far before answering.
    Flush,
    /// Which servers have a process on this node? Answer: a list of keys, each as often as it has one.
    Running,
    /// Which of the library's processes and tables exist? Answer: a list of names.
    Ours,
    /// Which reservations are in the simulated store? Answer: a list of `{Key, LeftMs}`.
    Reservations,
    /// Pause the simulated store: it answers nothing.
    PauseStore,
    /// Resume the simulated store. It also answers the requests that have waited.
    ResumeStore,
    /// Restart the node inside its virtual machine, as `bin/my_app restart` does.
    Restart,
    /// Stop the node, as `bin/my_app stop` does.
    Stop,
    /// Make the document of a server this many bytes large.
    Grow {
        key: Key,
        bytes: u32,
    },
    /// Start a drain, as a pre-stop hook does, and do not wait for it.
    Drain,
    /// Drop the connections to these nodes and keep them dropped.
    Cut(Vec<String>),
    Heal(Vec<String>),
}

impl Command {
    pub fn name(&self) -> String {
        atom_name(&self.parts().0).unwrap_or_default().to_owned()
    }

    pub fn to_term(&self, id: u64) -> Term {
        let (name, arguments) = self.parts();
        tuple([uint(id), name, list(arguments)])
    }

    /// The name and the arguments, which are the fields in their order.
    fn parts(&self) -> (Term, Vec<Term>) {
        match value(self) {
            Term::Tuple(mut command) => (command.elements.remove(0), command.elements),
            name => (name, vec![]),
        }
    }
}

/// What the simulated store refuses for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    None,
    All,
    /// Writes, claims and deletions.
    Writes,
    /// Everything that the node with this full name asks for.
    Node(String),
}

fn or_infinity<S: Serializer>(slots: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    match slots {
        Some(slots) => serializer.serialize_u32(*slots),
        None => serializer.serialize_unit_variant("Slots", 0, "infinity"),
    }
}

/// A node as another node's heartbeat table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The node's full name.
    pub name: String,
    pub draining: bool,
    /// The time of the heartbeat, in milliseconds of the wall clock.
    pub stamp_ms: u64,
}

/// The most elements of a list; no run has as many.
const MOST: usize = 1 << 20;

/// A list of at most [`MOST`] elements, which it names when it cannot be read.
pub fn read_all<T>(
    term: &Term,
    field: &'static str,
    read: impl FnMut(&Term) -> Result<T, etf::Error>,
) -> Result<Vec<T>, etf::Error> {
    read_each(term, field, MOST, read)
}

pub fn read_names(term: &Term) -> Result<Vec<String>> {
    Ok(read_all(term, "names", |name| read_text(name, "name"))?)
}

pub fn read_view(term: &Term) -> Result<Vec<Seen>> {
    Ok(read_all(term, "view", |seen| {
        let (name, draining, stamp_ms) = read_value(seen, "seen")?;
        Ok(Seen { name, draining, stamp_ms })
    })?)
}

/// Servers that cannot be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    pub count: u64,
    /// The first few.
    pub some: Vec<Key>,
}

pub fn read_missing(term: &Term) -> Result<Missing> {
    let (count, some) = read_value(term, "missing")?;
    Ok(Missing { count, some })
}

pub fn read_keys(term: &Term) -> Result<Vec<Key>> {
    Ok(read_all(term, "keys", |key| read_u32(key, "key"))?)
}

/// The clients' results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls by outcome; `ok` is an answered one, every other a way to fail.
    pub outcomes: BTreeMap<String, u64>,
    /// By server: increments that were answered.
    pub acknowledged: BTreeMap<Key, u64>,
    /// By server: failed increments of which it is unknown whether they were applied.
    pub uncertain: BTreeMap<Key, u64>,
    /// By server: the highest counter that was in the store when its increment was answered.
    pub kept: BTreeMap<Key, u64>,
    pub times: Vec<CallTime>,
}

/// When a call was made and how long it took, waiting for its server included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTime {
    /// When, in microseconds of the wall clock.
    pub at_us: u64,
    pub took_us: u64,
    pub answered: bool,
}

impl Calls {
    pub fn total(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Calls without an answer.
    pub fn failed(&self) -> u64 {
        self.total() - self.outcomes.get("ok").copied().unwrap_or(0)
    }
}

pub fn read_calls(term: &Term) -> Result<Calls> {
    let [outcomes, servers, times] = read_tuple(term, "calls")?;
    let mut calls =
        Calls { outcomes: read_counts(outcomes)?, times: read_times(read_bytes(times, "times")?)?, ..Calls::default() };
    read_all(servers, "servers", |server| {
        let (key, acknowledged, uncertain, kept) = read_value(server, "server")?;
        calls.acknowledged.insert(key, acknowledged);
        calls.uncertain.insert(key, uncertain);
        calls.kept.insert(key, kept);
        Ok(())
    })?;
    Ok(calls)
}

fn read_times(bytes: &[u8]) -> Result<Vec<CallTime>> {
    let (calls, rest) = bytes.as_chunks::<13>();
    if !rest.is_empty() {
        return Err(Error::protocol(format!("call times of {} bytes, not a multiple of 13", bytes.len())));
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    Ok(calls
        .iter()
        .map(|call| CallTime { at_us: number(&call[..8]), took_us: number(&call[8..12]), answered: call[12] == 1 })
        .collect())
}

/// A server's counter at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    pub key: Key,
    pub value: u64,
    /// The full name of the node it runs on; `None` when it does not answer and the value is the stored one.
    pub node: Option<String>,
    /// Whether the rest of its state is what it was when the server was first started.
    pub intact: bool,
}

pub fn read_counters(term: &Term) -> Result<Vec<Counter>> {
    Ok(read_all(term, "counters", |counter| {
        let (key, value, node, intact) = read_value(counter, "counter")?;
        Ok(Counter { key, value, node, intact })
    })?)
}

/// Reads a list of `{Name, Count}`.
pub fn read_counts(term: &Term) -> Result<BTreeMap<String, u64>> {
    let pairs: Vec<(String, u64)> = read_all(term, "counts", |pair| read_value(pair, "count"))?;
    Ok(pairs.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use etf::{atom, binary, text};

    use super::*;

    #[test]
    fn commands_are_id_name_arguments() {
        let (state_bytes, synced, newer) = (None, Synced::Half, false);
        let command = Command::StartServers { first: 1, step: 3, end: 300, state_bytes, synced, start_ms: 100, newer };
        assert_eq!(command.to_term(9).to_string(), "{9,'start_servers',[1,3,300,'nil','half',100,'false']}");
        let clients =
            Command::StartClients { clients: 4, servers: 70, every_ms: 10, sync_one_in: 0, kind: CallKind::Read };
        assert_eq!(clients.to_term(1).to_string(), "{1,'start_clients',[4,70,10,0,'read']}");
        let outage = Outage::Writes;
        let unlimited = Command::ConfigureStore { latency_ms: 10, slots: None, error_rate: 0.5, outage };
        assert_eq!(unlimited.to_term(10).to_string(), "{10,'configure_store',[10,'infinity',0.5,'writes']}");
    }

    #[test]
    fn answers_are_read() {
        let view = list([tuple([text("node1@127.0.0.1"), atom("true"), uint(1_760_000_000_000)])]);
        let seen = Seen { name: "node1@127.0.0.1".into(), draining: true, stamp_ms: 1_760_000_000_000 };
        assert_eq!(read_view(&view).unwrap(), [seen]);

        let missing = tuple([uint(2), list([uint(5), uint(9)])]);
        assert_eq!(read_missing(&missing).unwrap(), Missing { count: 2, some: vec![5, 9] });

        let answering = tuple([uint(1), uint(40), text("node1@127.0.0.1"), atom("false")]);
        let counters = list([answering, tuple([uint(2), uint(7), atom("nil"), atom("true")])]);
        let counters = read_counters(&counters).unwrap();
        assert_eq!((counters[0].node.as_deref(), counters[0].intact), (Some("node1@127.0.0.1"), false));
        assert_eq!(counters[1], Counter { key: 2, value: 7, node: None, intact: true });
    }

    #[test]
    fn calls_count_everything_but_ok_as_failed() {
        let outcomes =
            list([tuple([text("ok"), uint(90)]), tuple([text("noproc"), uint(3)]), tuple([text("timeout"), uint(1)])]);
        let times = binary([0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 7, 1]);
        let calls =
            read_calls(&tuple([outcomes, list([tuple([uint(4), uint(90), uint(1), uint(40)])]), times])).unwrap();
        assert_eq!(calls.times, [CallTime { at_us: 256, took_us: 7, answered: true }]);
        assert_eq!((calls.total(), calls.failed()), (94, 4));
        assert_eq!((calls.acknowledged[&4], calls.uncertain[&4], calls.kept[&4]), (90, 1, 40));
    }
}
