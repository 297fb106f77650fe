//! What the driver tells nodes, and how their answers read.
//!
//! A command is `{Id, Name, Arguments}` with the arguments in a list; its answer is the `reply` event with the same id.

use std::collections::BTreeMap;

use eetf::Term;

use super::term::{as_atom, as_list, as_list_of, as_text, as_tuple_of, as_u32, as_u64, atom, int, list, text, tuple};
use crate::Result;
use crate::history::Key;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Connect to these nodes.
    Connect(Vec<String>),
    /// Which nodes' heartbeats do you see? Answer: [`read_view`].
    View,
    /// Start servers `first`, `first + step`, ... below `end` here, nowhere else.
    StartServers {
        /// The first key.
        first: Key,
        /// Between two keys.
        step: u32,
        /// One past the last key.
        end: Key,
    },
    /// Which of servers `0..servers` does your registry not know? Answer: [`read_missing`].
    Missing {
        /// How many there are.
        servers: u32,
    },
    /// Start clients that call servers `0..servers`.
    StartClients {
        /// How many clients.
        clients: u32,
        /// How many servers.
        servers: u32,
    },
    /// Stop the clients. Answer: [`read_calls`].
    StopClients,
    /// Ask every server for its counter; of those that do not answer, read the stored state. Answer: [`read_counters`].
    Counters {
        /// How many there are.
        servers: u32,
    },
    /// Set the store's speed and start its statistics anew.
    ConfigureStore {
        /// Duration of one request.
        latency_ms: u32,
        /// Requests at once.
        slots: Option<u32>,
    },
    /// The store's statistics. Answer: [`read_counts`].
    StoreStats,
    /// Send every record taken so far before answering.
    Flush,
}

impl Command {
    /// The name, as in the term.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::View => "view",
            Self::StartServers { .. } => "start_servers",
            Self::Missing { .. } => "missing",
            Self::StartClients { .. } => "start_clients",
            Self::StopClients => "stop_clients",
            Self::Counters { .. } => "counters",
            Self::ConfigureStore { .. } => "configure_store",
            Self::StoreStats => "store_stats",
            Self::Flush => "flush",
        }
    }

    /// The command as a term.
    pub fn to_term(&self, id: u64) -> Term {
        let arguments = match self {
            Self::Connect(names) => vec![list(names.iter().map(|name| text(name)).collect::<Vec<_>>())],
            Self::View | Self::StopClients | Self::StoreStats | Self::Flush => vec![],
            Self::StartServers { first, step, end } => {
                vec![int((*first).into()), int((*step).into()), int((*end).into())]
            }
            Self::Missing { servers } | Self::Counters { servers } => vec![int((*servers).into())],
            Self::StartClients { clients, servers } => vec![int((*clients).into()), int((*servers).into())],
            Self::ConfigureStore { latency_ms, slots } => vec![int((*latency_ms).into()), slots_term(*slots)],
        };
        tuple([int(id), atom(self.name()), list(arguments)])
    }
}

/// Slots as the store takes them.
fn slots_term(slots: Option<u32>) -> Term {
    slots.map_or(atom("infinity"), |slots| int(slots.into()))
}

/// A node as another node's heartbeat table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The node's full name.
    pub name: String,
    /// Whether it takes no servers.
    pub draining: bool,
    /// When it said so, in milliseconds of the wall clock.
    pub stamp_ms: u64,
}

/// Reads the answer to [`Command::View`].
pub fn read_view(term: &Term) -> Result<Vec<Seen>> {
    as_list_of(term, |seen| {
        let [name, draining, stamp_ms] = as_tuple_of(seen)?;
        Ok(Seen { name: as_text(name)?, draining: as_atom(draining)? == "true", stamp_ms: as_u64(stamp_ms)? })
    })
}

/// Servers that cannot be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// How many.
    pub count: u64,
    /// The first few.
    pub some: Vec<Key>,
}

/// Reads the answer to [`Command::Missing`].
pub fn read_missing(term: &Term) -> Result<Missing> {
    let [count, some] = as_tuple_of(term)?;
    Ok(Missing { count: as_u64(count)?, some: as_list_of(some, as_u32)? })
}

/// What the clients saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls by outcome; `ok` is an answered one, every other a way to fail.
    pub outcomes: BTreeMap<String, u64>,
    /// By server: increments that were answered.
    pub acknowledged: BTreeMap<Key, u64>,
    /// By server: increments that failed in a way that leaves open whether they were applied.
    pub uncertain: BTreeMap<Key, u64>,
}

impl Calls {
    /// All calls.
    pub fn total(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Calls without an answer.
    pub fn failed(&self) -> u64 {
        self.total() - self.outcomes.get("ok").copied().unwrap_or(0)
    }
}

/// Reads the answer to [`Command::StopClients`].
pub fn read_calls(term: &Term) -> Result<Calls> {
    let [outcomes, servers] = as_tuple_of(term)?;
    let mut calls = Calls { outcomes: read_counts(outcomes)?, ..Calls::default() };
    for server in as_list(servers)? {
        let [key, acknowledged, uncertain] = as_tuple_of(&server)?;
        calls.acknowledged.insert(as_u32(key)?, as_u64(acknowledged)?);
        calls.uncertain.insert(as_u32(key)?, as_u64(uncertain)?);
    }
    Ok(calls)
}

/// A server's counter at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Which server.
    pub key: Key,
    /// Its value.
    pub value: u64,
    /// The full name of the node it runs on; `None` when it does not answer and the value is the stored one.
    pub node: Option<String>,
}

/// Reads the answer to [`Command::Counters`].
pub fn read_counters(term: &Term) -> Result<Vec<Counter>> {
    as_list_of(term, |counter| {
        let [key, value, node] = as_tuple_of(counter)?;
        let node = if matches!(node, Term::Atom(_)) { None } else { Some(as_text(node)?) };
        Ok(Counter { key: as_u32(key)?, value: as_u64(value)?, node })
    })
}

/// Reads a list of `{Name, Count}`.
pub fn read_counts(term: &Term) -> Result<BTreeMap<String, u64>> {
    let pairs = as_list_of(term, |pair| {
        let [name, count] = as_tuple_of(pair)?;
        Ok((as_text(name)?, as_u64(count)?))
    })?;
    Ok(pairs.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_id_name_arguments() {
        let command = Command::StartServers { first: 1, step: 3, end: 300 };
        assert_eq!(command.to_term(9).to_string(), "{9,'start_servers',[1,3,300]}");
        let unlimited = Command::ConfigureStore { latency_ms: 10, slots: None };
        assert_eq!(unlimited.to_term(10).to_string(), "{10,'configure_store',[10,'infinity']}");
    }

    #[test]
    fn answers_are_read() {
        let view = list([tuple([text("node1@127.0.0.1"), atom("true"), int(1_760_000_000_000)])]);
        let seen = Seen { name: "node1@127.0.0.1".into(), draining: true, stamp_ms: 1_760_000_000_000 };
        assert_eq!(read_view(&view).unwrap(), [seen]);

        let missing = tuple([int(2), list([int(5), int(9)])]);
        assert_eq!(read_missing(&missing).unwrap(), Missing { count: 2, some: vec![5, 9] });

        let counters = list([tuple([int(1), int(40), text("node1@127.0.0.1")]), tuple([int(2), int(7), atom("nil")])]);
        let counters = read_counters(&counters).unwrap();
        assert_eq!(counters[0].node.as_deref(), Some("node1@127.0.0.1"));
        assert_eq!(counters[1], Counter { key: 2, value: 7, node: None });
    }

    #[test]
    fn calls_count_everything_but_ok_as_failed() {
        let outcomes =
            list([tuple([text("ok"), int(90)]), tuple([text("noproc"), int(3)]), tuple([text("timeout"), int(1)])]);
        let calls = read_calls(&tuple([outcomes, list([tuple([int(4), int(90), int(1)])])])).unwrap();
        assert_eq!((calls.total(), calls.failed()), (94, 4));
        assert_eq!((calls.acknowledged[&4], calls.uncertain[&4]), (90, 1));
    }
}
