//! The nodes of one mode. Dropping the cluster ends them.
//!
//! Every wait has a limit, ends on an interrupt, and fails at once when a node ends without having been told
//! to stop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use etf::Term;

use super::commands::Command;
use super::events::{Drained, Event, HeldUp, Reported};
use super::link::{Incoming, Links};
use super::node::Node;
use super::node_config::{Common, NodeConfig, RUST, Role};
use crate::history::{Moment, NodeId, Record};
use crate::interrupt::Interrupt;
use crate::paths::Paths;
use crate::random::hex;
use crate::rust_node::RustNode;
use crate::settings::Settings;
use crate::variant::Variant;
use crate::{Error, Result};

/// The time limit from `exec` to a complete supervision tree, generous for a loaded machine.
const BOOT_BOUND: Duration = Duration::from_secs(120);

/// The time limit of a command. The longest one starts thousands of servers.
const COMMAND_BOUND: Duration = Duration::from_secs(300);

/// The interval at which waits check for interrupts and for ended processes, which send no message.
const TICK: Duration = Duration::from_millis(20);

/// The end of a drain of `durable_handoff`.
#[derive(Debug)]
pub struct DrainEnd {
    pub node: NodeId,
    pub report: Drained,
}

/// What the nodes have said so far.
#[derive(Debug, Default)]
pub struct Heard {
    pub records: Vec<Record>,
    pub drained: Vec<DrainEnd>,
    /// How long drains have delayed the shutdowns of nodes.
    pub held_up: Vec<(NodeId, HeldUp)>,
    pub fallbacks: Vec<(NodeId, String)>,
    /// How long calls waited for their server, in microseconds. Calls that did not wait are left out.
    pub waited_us: Vec<u64>,
    /// How many server processes have started.
    pub started: u32,
    /// The calls of the running clients: answered, failed.
    pub calls: (u64, u64),
}

#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    common: Common,
    paths: Paths,
    interrupt: Interrupt,
    links: Links,
    nodes: Vec<Node>,
    rust_node: Option<RustNode>,
    pub heard: Heard,
    replies: BTreeMap<u64, Result<Term, String>>,
    next_command: u64,
}

impl Cluster {
    pub fn new(variant: Variant, settings: &Settings, paths: &Paths, interrupt: &Interrupt) -> Result<Self> {
        let token = hex(16)?;
        let links = Links::listen(token.clone()).map_err(Error::io("listening on the loopback interface"))?;
        // The suffix is in every node name, so that several runs can share a machine and its EPMD.
        let (cookie, suffix) = (hex(16)?, hex(4)?);
        let store_url = paths.store_url(&settings.store, &variant.slug())?;
        let common = Common { variant, store_url, token, cookie, suffix, port: links.port() };
        Ok(Self {
            settings: settings.clone(),
            common,
            paths: paths.clone(),
            interrupt: interrupt.clone(),
            links,
            nodes: Vec::new(),
            rust_node: None,
            heard: Heard::default(),
            replies: BTreeMap::new(),
            next_command: 0,
        })
    }

    /// Starts nodes at the same time, waits until all are up, and connects each to every other node.
    pub fn start(&mut self, configs: Vec<NodeConfig>) -> Result<Vec<NodeId>> {
        let mut fresh = Vec::new();
        for config in configs {
            fresh.push(NodeId(self.nodes.len()));
            self.nodes.push(Node::spawn(config, &self.common, &self.settings, &self.paths.logs)?);
        }
        let waited_for = fresh.clone();
        self.wait("booting nodes", BOOT_BOUND, |cluster| {
            Ok(waited_for.iter().all(|&id| cluster.node(id).versions.is_some()).then_some(()))
        })?;
        self.connect(&fresh)?;
        Ok(fresh)
    }

    /// Connects these nodes to every other one.
    fn connect(&mut self, fresh: &[NodeId]) -> Result<()> {
        let names: Vec<String> = self.alive().map(|id| self.node(id).name.clone()).collect();
        fresh.iter().try_for_each(|&id| self.call(id, Command::Connect(names.clone())).map(drop))
    }

    /// Waits until a node that was told to restart is up again, and connects it to every other node.
    pub fn await_restarted(&mut self, id: NodeId) -> Result<()> {
        self.wait("a node restarting", BOOT_BOUND, |cluster| {
            let node = cluster.node(id);
            Ok((node.gone_us.is_some() && node.is_connected() && node.versions.is_some()).then_some(()))
        })?;
        self.connect(&[id])
    }

    pub fn variant(&self) -> Variant {
        self.common.variant
    }

    /// Starts the Rust node and waits until it accepts drains. The application nodes must be up.
    pub fn start_rust_node(&mut self) -> Result<()> {
        let connect: Vec<String> = self.alive_as(Role::App).map(|id| self.node(id).name.clone()).collect();
        let log = self.paths.logs.join(format!("{}-rust.log", self.common.variant.slug()));
        let name = self.common.full_name(RUST);
        self.rust_node = Some(RustNode::spawn(&name, &connect, &self.common.cookie, &self.paths.scratch, &log)?);
        self.wait("the Rust node getting ready", BOOT_BOUND, |cluster| {
            Ok(cluster.rust_node.as_mut().is_some_and(RustNode::is_ready).then_some(()))
        })
    }

    pub fn rust_node(&mut self) -> Option<&mut RustNode> {
        self.rust_node.as_mut()
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// All nodes in the order of their starts, including those that have ended.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn alive(&self) -> impl Iterator<Item = NodeId> {
        (0..self.nodes.len()).map(NodeId).filter(|&id| self.node(id).is_connected())
    }

    pub fn alive_as(&self, role: Role) -> impl Iterator<Item = NodeId> {
        self.alive().filter(move |&id| self.node(id).config.role == role)
    }

    pub fn call(&mut self, id: NodeId, command: Command) -> Result<Term> {
        let mut answers = self.call_each(vec![(id, command)], |_| {})?;
        Ok(answers.remove(0))
    }

    /// Sends commands to several nodes at once and waits for all answers. `watch` is called while waiting.
    pub fn call_each(&mut self, calls: Vec<(NodeId, Command)>, mut watch: impl FnMut(&Self)) -> Result<Vec<Term>> {
        let mut asked = Vec::new();
        for (id, command) in calls {
            asked.push((self.send(id, &command)?, id, command.name()));
        }
        let doing = asked.first().map_or("nothing", |(_, _, name)| name);
        self.wait(doing, COMMAND_BOUND, |cluster| {
            watch(cluster);
            Ok(asked.iter().all(|(number, ..)| cluster.replies.contains_key(number)).then_some(()))
        })?;
        asked
            .into_iter()
            .map(|(number, id, command)| {
                self.replies.remove(&number).expect("waited for above").map_err(|reason| Error::Refused {
                    node: self.node(id).config.label.clone(),
                    command,
                    reason,
                })
            })
            .collect()
    }

    /// Sends a command to a node that may be ending. Returns its number, or `None` when the node has ended.
    pub fn ask(&mut self, id: NodeId, command: &Command) -> Result<Option<u64>> {
        match self.send(id, command) {
            Err(_) if self.node(id).was_told_to_stop() => Ok(None),
            sent => sent.map(Some),
        }
    }

    pub fn has_answered(&self, number: u64) -> bool {
        self.replies.contains_key(&number)
    }

    fn send(&mut self, id: NodeId, command: &Command) -> Result<u64> {
        let number = self.next_command;
        self.next_command += 1;
        self.nodes[id.0].send(number, command)?;
        Ok(number)
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    /// Handles messages of nodes until `condition` returns a value.
    pub fn wait<T>(
        &mut self,
        doing: &str,
        bound: Duration,
        mut condition: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let until = Instant::now() + bound;
        loop {
            if let Some(value) = condition(self)? {
                return Ok(value);
            }
            if Instant::now() >= until {
                return Err(Error::TooLong { doing: doing.to_owned(), seconds: bound.as_secs() });
            }
            self.take_in(doing)?;
        }
    }

    pub fn listen_for(&mut self, time: Duration, doing: &str) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.take_in(doing)?;
        }
        Ok(())
    }

    fn take_in(&mut self, doing: &str) -> Result<()> {
        self.interrupt.check()?;
        if let Some(incoming) = self.links.next(TICK) {
            return self.apply(incoming, doing);
        }
        let lost = self.nodes.iter_mut().find_map(|node| node.never_came().then(|| node.last_words(doing)));
        match lost.or_else(|| self.rust_node.as_mut()?.ended(doing)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn apply(&mut self, incoming: Incoming, doing: &str) -> Result<()> {
        match incoming {
            Incoming::Connected { label, writer } => {
                let id = self.find(&label)?;
                self.node_mut(id).connected(writer);
            }
            Incoming::Said { label, event } => {
                let id = self.find(&label)?;
                self.apply_event(id, event?)?;
            }
            Incoming::Closed { label, at_us } => {
                let id = self.find(&label)?;
                let node = self.node_mut(id);
                if !node.closed(at_us) {
                    return Err(node.last_words(doing));
                }
            }
        }
        Ok(())
    }

    fn apply_event(&mut self, id: NodeId, event: Event) -> Result<()> {
        match event {
            Event::Ready(versions) => self.node_mut(id).ready(versions),
            Event::Records(records) => {
                let ahead_us = self.node(id).config.ahead_us();
                for reported in records {
                    self.heard.started += u32::from(reported.moment == Moment::Init);
                    let Reported { moment, key, process, at_us, counter } = reported;
                    let at_us = at_us.saturating_sub(ahead_us);
                    self.heard.records.push(Record { node: id, key, process, moment, at_us, counter });
                }
            }
            Event::Calls { ok, failed } => self.heard.calls = (ok, failed),
            Event::Drained(report) => {
                let at_us = report.at_us.saturating_sub(self.node(id).config.ahead_us());
                self.heard.drained.push(DrainEnd { node: id, report: Drained { at_us, ..report } });
            }
            Event::Shutdown(held_up) => self.heard.held_up.push((id, held_up)),
            Event::Waited(waited_us) => self.heard.waited_us.push(waited_us),
            Event::Fallback(reason) => self.heard.fallbacks.push((id, reason)),
            Event::Reply { id, answer } => {
                self.replies.insert(id, answer);
            }
        }
        Ok(())
    }

    fn find(&self, label: &str) -> Result<NodeId> {
        // If several nodes have had this label, the last one: it started after the others had ended.
        let found = self.nodes.iter().rposition(|node| node.config.label == label);
        found.map(NodeId).ok_or_else(|| Error::protocol(format!("no node is called {label}")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All nodes are killed at once; otherwise the remaining ones would react to each lost node. The Rust
        // node is killed first for the same reason.
        self.rust_node = None;
        for node in &mut self.nodes {
            node.hang_up();
        }
        for node in &mut self.nodes {
            // Dropping the process tries again, and a destructor returns no error.
            let _ = node.kill();
        }
    }
}
