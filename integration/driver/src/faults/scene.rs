//! The cluster during a fault: the actions of a fault, and a record of them.

use std::time::Duration;

use handoff_sim::random::Random;

use super::expected;
use super::setup::Setup;
use crate::Result;
use crate::beam::Cluster;
use crate::beam::commands::{Command, Outage};
use crate::beam::events::Drained;
use crate::beam::link::now_us;
use crate::history::{Drain, NodeId};
use crate::progress::ModeProgress;
use crate::report::ModeReport;
use crate::run::stage::{Stage, app, wait_until_all_see_all};
use crate::run::unsynced;
use crate::settings::Settings;
use crate::store::Store;

/// The limit of every wait of a fault. A run that exceeds it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Scene<'a> {
    pub cluster: Cluster,
    pub stage: Stage,
    pub settings: &'a Settings,
    /// The only source of random numbers.
    pub random: Random,
    pub progress: &'a ModeProgress,
    pub setup: Setup,
    /// The problems that the fault itself has found.
    pub broken: Vec<String>,
    /// Whether every server was incremented once by [`Self::increment_all`].
    pub incremented: bool,
    /// How many of those increments were in storage when the fault counted them.
    pub stored: Option<u32>,
    /// When the fault last waited for the drain to come so far; it happens right after.
    pub reached_us: Option<u64>,
    told: Vec<(NodeId, u64)>,
    killed: Vec<NodeId>,
    started_before: u32,
}

impl<'a> Scene<'a> {
    pub fn new(
        setup: Setup,
        cluster: Cluster,
        stage: Stage,
        settings: &'a Settings,
        seed: u64,
        progress: &'a ModeProgress,
    ) -> Self {
        Self {
            started_before: cluster.heard.started,
            cluster,
            stage,
            settings,
            random: Random::new(seed),
            progress,
            setup,
            broken: Vec::new(),
            incremented: false,
            stored: None,
            reached_us: None,
            told: Vec::new(),
            killed: Vec::new(),
        }
    }

    /// The node that drains.
    pub fn source(&self) -> NodeId {
        self.stage.apps[0]
    }

    /// A node without servers; always the same one.
    pub fn target(&self) -> NodeId {
        *self.stage.apps.last().expect("every cluster has application nodes")
    }

    /// Sends SIGTERM to a node, as a deploy does.
    pub fn terminate(&mut self, id: NodeId) -> Result<()> {
        self.progress.step(&format!("stopping {}", self.cluster.node(id).config.label));
        let at_us = self.cluster.node_mut(id).sigterm()?;
        self.remember(id, at_us);
        Ok(())
    }

    /// Stops a node as `bin/my_app stop` does.
    pub fn stop(&mut self, id: NodeId) -> Result<()> {
        self.progress.step(&format!("stopping {}", self.cluster.node(id).config.label));
        let at_us = self.cluster.node_mut(id).stops();
        self.remember(id, at_us);
        self.tell(id, Command::Stop)
    }

    /// Restarts a node inside its virtual machine as `bin/my_app restart` does. Returns when every node sees it again.
    pub fn restart(&mut self, id: NodeId) -> Result<()> {
        self.progress.step(&format!("restarting {}", self.cluster.node(id).config.label));
        let at_us = self.cluster.node_mut(id).restarts();
        self.remember(id, at_us);
        self.tell(id, Command::Restart)?;
        self.cluster.await_restarted(id)?;
        let gone_us = self.cluster.node(id).gone_us.unwrap_or(at_us);
        wait_until_all_see_all(&mut self.cluster, gone_us)
    }

    /// Starts a node that was killed again, under its name. Returns when it is up.
    pub fn start_again(&mut self, id: NodeId) -> Result<()> {
        let config = self.cluster.node(id).config.clone();
        self.await_end(id)?;
        self.progress.step(&format!("starting {} again", config.label));
        self.cluster.start(vec![config]).map(drop)
    }

    pub fn kill(&mut self, id: NodeId) -> Result<()> {
        self.progress.step(&format!("killing {}", self.cluster.node(id).config.label));
        self.remember(id, now_us());
        self.killed.push(id);
        self.cluster.node_mut(id).kill()
    }

    pub fn was_killed(&self, id: NodeId) -> bool {
        self.killed.contains(&id)
    }

    /// Increments every server once without storing the increment. No client may call meanwhile.
    pub fn increment_all(&mut self) -> Result<()> {
        self.incremented = true;
        unsynced::increment_all(&mut self.cluster, &self.stage, self.setup.servers)
    }

    /// Counts the increments of [`Self::increment_all`] that are in storage.
    pub fn count_stored(&mut self) -> Result<()> {
        self.stored = Some(unsynced::stored(&mut self.cluster, &self.stage, self.setup.servers)?);
        Ok(())
    }

    fn remember(&mut self, id: NodeId, at_us: u64) {
        if !self.told.iter().any(|(told, _)| *told == id) {
            self.told.push((id, at_us));
        }
    }

    /// Waits until this part of the servers has started again elsewhere, or the source has ended.
    pub fn await_moved(&mut self, part: f64) -> Result<()> {
        let wanted = part * f64::from(self.setup.servers);
        let (source, before) = (self.source(), self.started_before);
        self.cluster.wait("servers moving", PATIENCE, |cluster| {
            let moved = f64::from(cluster.heard.started - before) >= wanted;
            Ok((moved || cluster.node_mut(source).has_ended()?).then_some(()))
        })?;
        self.reached_us = Some(now_us());
        Ok(())
    }

    /// Sends SIGTERM to the source, and waits until a random part of its servers between these two has moved.
    pub fn drain_until_moved(&mut self, least: f64, most: f64) -> Result<()> {
        let part = self.random.within(least, most);
        self.terminate(self.source())?;
        self.await_moved(part)
    }

    pub fn await_end(&mut self, id: NodeId) -> Result<()> {
        let label = self.cluster.node(id).config.label.clone();
        self.cluster
            .wait(&format!("{label} stopping"), PATIENCE, |cluster| Ok(cluster.node_mut(id).has_ended()?.then_some(())))
    }

    /// Waits while the clients continue to call.
    pub fn let_pass(&mut self, milliseconds: u64, what: &str) -> Result<()> {
        self.progress.step(what);
        self.cluster.listen_for(Duration::from_millis(milliseconds), what)
    }

    /// Suspends a node (SIGSTOP), which keeps its connections, and lets it continue when `meanwhile` has returned.
    pub fn suspend(&mut self, id: NodeId, meanwhile: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
        self.cluster.node_mut(id).pause()?;
        meanwhile(self)?;
        self.cluster.node_mut(id).resume()
    }

    /// Drops the connection between two nodes and keeps it dropped.
    pub fn part(&mut self, one: NodeId, other: NodeId) -> Result<()> {
        let [one_name, other_name] = [one, other].map(|id| self.cluster.node(id).name.clone());
        self.tell(one, Command::Cut(vec![other_name]))?;
        self.tell(other, Command::Cut(vec![one_name]))
    }

    /// Allows the connection of two separated nodes again, and connects them.
    pub fn heal(&mut self, one: NodeId, other: NodeId) -> Result<()> {
        let [one_name, other_name] = [one, other].map(|id| self.cluster.node(id).name.clone());
        self.tell(one, Command::Heal(vec![other_name]))?;
        self.tell(other, Command::Heal(vec![one_name.clone()]))?;
        if self.cluster.node(one).is_connected() { self.tell(other, Command::Connect(vec![one_name])) } else { Ok(()) }
    }

    /// Starts new application nodes, and waits until they are up.
    pub fn start_fresh(&mut self, count: usize) -> Result<()> {
        self.progress.step("starting fresh nodes");
        let fresh = (0..count).map(|n| app(self.settings, 2, self.stage.apps.len() + n)).collect();
        self.cluster.start(fresh).map(drop)
    }

    /// Separates the Rust node from an application node.
    pub fn part_from_rust_node(&mut self, id: NodeId) -> Result<()> {
        let name = self.cluster.rust_node().map(|node| node.name.clone());
        name.map_or(Ok(()), |name| self.tell(id, Command::Cut(vec![name])))
    }

    /// Sends a command to a node, which may end before it answers.
    fn tell(&mut self, id: NodeId, command: Command) -> Result<()> {
        let asked = self.cluster.ask(id, &command)?;
        self.cluster.wait(&command.name(), PATIENCE, |cluster| {
            let answered = asked.is_none_or(|number| cluster.has_answered(number));
            Ok((answered || !cluster.node(id).is_connected()).then_some(()))
        })
    }

    /// Makes the simulated store fast, regardless of the fault's settings.
    pub fn quick_store(&mut self) -> Result<()> {
        self.to_store(Command::ConfigureStore { latency_ms: 5, slots: None, error_rate: 0.0, outage: Outage::None })
    }

    /// Changes latency and error rate of the simulated store; `None` restores them.
    pub fn store(&mut self, change: Option<(u32, f64)>) -> Result<()> {
        let Store::Simulated { latency_ms, slots, error_rate } = self.settings.store else { return Ok(()) };
        let (latency_ms, error_rate) = change.unwrap_or((latency_ms, error_rate));
        self.to_store(Command::ConfigureStore { latency_ms, slots, error_rate, outage: Outage::None })
    }

    /// Lets the simulated store refuse requests for this long.
    pub fn store_out(&mut self, outage: Outage, milliseconds: u64) -> Result<()> {
        self.store_refuses(outage)?;
        self.let_pass(milliseconds, "the store refuses requests")?;
        self.store(None)
    }

    /// Lets the simulated store refuse requests from now on.
    pub fn store_refuses(&mut self, outage: Outage) -> Result<()> {
        let Store::Simulated { latency_ms, slots, error_rate } = self.settings.store else { return Ok(()) };
        self.to_store(Command::ConfigureStore { latency_ms, slots, error_rate, outage })
    }

    pub fn to_store(&mut self, command: Command) -> Result<()> {
        let store = self.stage.store.expect("runs of faults have the simulated store");
        self.cluster.call(store, command).map(drop)
    }

    /// Whether the drain of the source was over before the fault happened in it.
    pub fn missed(&self) -> Option<String> {
        let ended = self.cluster.heard.drained.iter().find(|end| end.node == self.source());
        expected::missed(self.reached_us, ended.map(|end| end.report.at_us))
    }

    /// The promises of this fault that were broken.
    pub fn unexpected(&self, figures: &ModeReport) -> Vec<String> {
        let target = &self.cluster.node(self.target()).config.label;
        let drained: Vec<&Drained> = self.cluster.heard.drained.iter().map(|end| &end.report).collect();
        self.setup.expected.iter().filter_map(|expected| expected.broken(figures, target, &drained)).collect()
    }

    /// Waits for the end of every node that was told to stop. Returns their drains.
    pub fn drains(&mut self) -> Result<Vec<Drain>> {
        let told = self.told.clone();
        for (id, _) in &told {
            self.await_end(*id)?;
        }
        let gone_us = |id| self.cluster.node(id).gone_us.unwrap_or_else(now_us);
        Ok(told.iter().map(|&(node, sigterm_us)| Drain { node, sigterm_us, gone_us: gone_us(node) }).collect())
    }
}
