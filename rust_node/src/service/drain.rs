//! One drain.
//!
//! Guarantee: a drain is in one stage and has the data of that stage only. When a drain is forgotten, its
//! attempts in flight are returned to the shared ledger and limiter.

use etf::Pid;
use handoff_core::event::{Event, Outcome};
use handoff_core::time::Micros;
use handoff_core::{
    Action, ClusterView, Config, Engine, EngineError, Goal, ModuleId, Progress, Report, Scope, ServerSpec, WaitsFor,
};
use handoff_wire::{DrainId, DrainOpen, Message, Orders, RefuseReason, ViewParts};
use tracing::{Span, error_span, info, warn};

use super::attempts::Attempts;
use super::history::EndedDrain;
use super::info::Gaps;
use super::pace::Pace;
use super::storage::Storage;
use crate::metrics::Metrics;

/// The interval of log lines about the progress of a drain.
const LOG_EVERY: Micros = Micros::from_millis(10_000);

#[derive(Debug)]
pub(super) struct Drain {
    /// The process that receives the orders.
    pub(super) drainer: Pid,
    pub(super) supervisor: String,
    pub(super) goal: Goal,
    /// Its `max_concurrency`.
    pub(super) ceiling: u32,
    /// The storage of the drain's servers.
    pub(super) storage: String,
    /// The announced number of servers.
    pub(super) count: u32,
    pub(super) opened: Micros,
    /// When the last message of the drain's process arrived.
    pub(super) received_at: Micros,
    pub(super) progress_sent_at: Micros,
    logged_at: Micros,
    pub(super) pace: Pace,
    /// Adds node, number and supervisor to every log line of the drain.
    pub(super) span: Span,
    /// The latest time of the next poll of the engine.
    pub(super) wake: Option<Micros>,
    /// For each module number of the drain, the number of that module on the storage.
    modules: Vec<ModuleId>,
    views: ViewParts,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The servers and the first view are being received.
    Loading { config: Box<Config>, servers: Vec<ServerSpec>, view: Option<ClusterView> },
    /// The engine makes decisions.
    Running { engine: Box<Engine>, attempts: Attempts },
    /// The engine is done. Attempts may still be in flight.
    Over { engine: Box<Engine>, attempts: Attempts, since: Micros },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Fine,
    Started,
    Closed,
    Refused(RefuseReason),
}

impl Drain {
    pub(super) fn new(open: DrainOpen, modules: Vec<ModuleId>, now: Micros) -> Self {
        // A span of the highest level: a log level that hides lines must not hide the other lines' fields.
        let span = error_span!("drain", node = %open.drainer.node.name, id = open.id.0, supervisor = %open.supervisor, goal = open.config.goal.name());
        span.in_scope(|| info!(servers = open.count, storage = %open.storage, "drain opened"));
        Drain {
            span,
            logged_at: now,
            pace: Pace::default(),
            drainer: open.drainer,
            supervisor: open.supervisor,
            goal: open.config.goal,
            ceiling: open.config.max_concurrency,
            storage: open.storage,
            count: open.count,
            opened: now,
            received_at: now,
            progress_sent_at: now,
            wake: None,
            modules,
            views: ViewParts::default(),
            // Memory is allocated as servers arrive, not by their announced number.
            stage: Stage::Loading { config: Box::new(open.config), servers: Vec::new(), view: None },
        }
    }

    pub(super) fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Loading { .. } => "loading",
            Stage::Running { .. } => "running",
            Stage::Over { .. } => "over",
        }
    }

    pub(super) fn take(&mut self, now: Micros, message: Message, storage: &mut Storage, metrics: &Metrics) -> Taken {
        match message {
            Message::Servers(chunk) => self.servers(chunk.first, chunk.servers),
            Message::View(part) => match self.views.add(part) {
                Ok(None) => Taken::Fine,
                Ok(Some(view)) => self.view(now, view, storage),
                Err(error) => refused(&error),
            },
            Message::DrainStart(start) => self.start(now, start.left_ms, storage),
            Message::Events(events) => {
                if let Stage::Loading { .. } = self.stage {
                    return out_of_order("no events before drain_start");
                }
                storage.changed = true;
                for event in events.events {
                    self.event(now, event, storage, metrics);
                }
                Taken::Fine
            }
            Message::DrainClose(_) => Taken::Closed,
            _ => Taken::Fine,
        }
    }

    /// Polls the engine. Returns its orders, and the report when the drain is over.
    pub(super) fn poll(&mut self, now: Micros, id: DrainId, storage: &mut Storage) -> (Vec<Orders>, Option<Report>) {
        let Stage::Running { engine, attempts } = &mut self.stage else {
            return (Vec::new(), None);
        };
        let poll = engine.poll(now, &mut storage.shared);
        self.wake = poll.wake;
        for action in &poll.actions {
            if let Action::Start { id, attempt, .. } = action {
                attempts.started(*id, *attempt, now);
            }
        }
        let orders: Vec<Orders> = Orders::split(id, &poll.actions).collect();
        if poll.actions.last() != Some(&Action::Finish) {
            return (orders, None);
        }
        let report = engine.report(now, &storage.shared);
        self.span.in_scope(|| log_report(&report));
        let stage = Stage::Loading { config: Box::default(), servers: Vec::new(), view: None };
        if let Stage::Running { engine, mut attempts } = std::mem::replace(&mut self.stage, stage) {
            attempts.over();
            self.stage = Stage::Over { engine, attempts, since: now };
        }
        self.wake = None;
        (orders, Some(report))
    }

    /// Stores the progress, and logs it at intervals while the drain runs.
    pub(super) fn note(&mut self, now: Micros, progress: &Progress) {
        self.pace.sample(now, progress.moved);
        if !matches!(self.stage, Stage::Running { .. }) || now.since(self.logged_at) < LOG_EVERY {
            return;
        }
        self.logged_at = now;
        let Progress { total, moved, left, in_flight, displaced, failures, limit, .. } = *progress;
        let waits_for = progress.waits_for.map(WaitsFor::name);
        self.span.in_scope(|| info!(total, moved, left, in_flight, displaced, failures, limit, waits_for, "draining"));
    }

    pub(super) fn gaps(&self) -> Gaps {
        Gaps { gap_us: self.pace.quantiles(), gaps: self.pace.buckets() }
    }

    /// Completes `ended` with node and gaps. The report has the exact quantiles.
    pub(super) fn ended(&self, node: &str, ended: EndedDrain) -> EndedDrain {
        let gaps = Gaps { gap_us: ended.gaps.gap_us, gaps: self.pace.buckets() };
        let goal = self.goal.name().to_owned();
        EndedDrain { node: node.to_owned(), supervisor: self.supervisor.clone(), goal, gaps, ..ended }
    }

    /// The report so far, or `None` before servers may move.
    pub(super) fn report(&self, now: Micros, storage: &Storage) -> Option<Report> {
        match &self.stage {
            Stage::Loading { .. } => None,
            Stage::Running { engine, .. } | Stage::Over { engine, .. } => Some(engine.report(now, &storage.shared)),
        }
    }

    pub(super) fn is_due(&self, now: Micros) -> bool {
        self.wake.is_some_and(|wake| wake <= now)
    }

    /// True when the drain has been over for longer than outcomes take, or was not started within its own
    /// time limit.
    pub(super) fn is_overdue(&self, now: Micros, linger: Micros) -> bool {
        match &self.stage {
            Stage::Loading { config, .. } => now.since(self.opened) >= Micros::from_millis(config.timeout_ms),
            Stage::Running { .. } => false,
            Stage::Over { since, .. } => now.since(*since) >= linger,
        }
    }

    pub(super) fn progress(&self, storage: &Storage) -> Progress {
        match &self.stage {
            Stage::Loading { .. } => Progress {
                total: self.count.into(),
                pending: self.count.into(),
                limit: storage.shared.limiter.limit().min(self.ceiling),
                ..Progress::default()
            },
            Stage::Running { engine, .. } | Stage::Over { engine, .. } => engine.progress(&storage.shared),
        }
    }

    /// Returns the permits and slots of servers in flight and waiting. Other drains treat these as gone.
    pub(super) fn give_back(&mut self, now: Micros, storage: &mut Storage) {
        let (Stage::Running { engine, attempts } | Stage::Over { engine, attempts, .. }) = &mut self.stage else {
            return;
        };
        for (id, attempt) in attempts.take() {
            let event = Event::Finished { id, attempt, outcome: Outcome::Gone, latency: Micros::ZERO };
            // The engine of a drain that is over answers `Finished`, and still returns the permit.
            let _over = engine.on_event(now, event, &mut storage.shared);
        }
        engine.give_up_places(&mut storage.shared);
    }

    fn servers(&mut self, first: u32, chunk: Vec<ServerSpec>) -> Taken {
        let Stage::Loading { servers, .. } = &mut self.stage else {
            return out_of_order("no servers after drain_start");
        };
        let expected = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        if first != expected {
            return Taken::Refused(RefuseReason::OutOfOrder { what: format!("servers from {expected}, got {first}") });
        }
        if servers.len() + chunk.len() > self.count as usize {
            return Taken::Refused(RefuseReason::Full {
                what: "servers announced".to_owned(),
                limit: self.count.into(),
            });
        }
        for server in chunk {
            let Some(module) = self.modules.get(server.module.0 as usize) else {
                return unknown_module(server.module);
            };
            servers.push(ServerSpec { module: *module, ..server });
        }
        Taken::Fine
    }

    fn view(&mut self, now: Micros, mut new: ClusterView, storage: &mut Storage) -> Taken {
        for capacity in new.nodes.iter_mut().flat_map(|node| &mut node.capacity) {
            if let Scope::Module(own) = capacity.scope {
                match self.modules.get(own.0 as usize) {
                    Some(module) => capacity.scope = Scope::Module(*module),
                    None => return unknown_module(own),
                }
            }
        }
        for missing in new.nodes.iter_mut().flat_map(|node| &mut node.missing) {
            match self.modules.get(missing.0 as usize) {
                Some(module) => *missing = *module,
                None => return unknown_module(*missing),
            }
        }
        match &mut self.stage {
            Stage::Loading { view, .. } => {
                *view = Some(new);
                Taken::Fine
            }
            Stage::Running { engine, .. } => {
                storage.changed = true;
                storage.complete(&mut new);
                match engine.on_event(now, Event::View(new), &mut storage.shared) {
                    Err(EngineError::Invalid { problems }) => Taken::Refused(RefuseReason::Invalid { problems }),
                    _ => Taken::Fine,
                }
            }
            Stage::Over { .. } => Taken::Fine,
        }
    }

    fn start(&mut self, now: Micros, left_ms: u64, storage: &mut Storage) -> Taken {
        let Stage::Loading { config, servers, view } = &mut self.stage else {
            return out_of_order("drain_start once");
        };
        if servers.len() != self.count as usize {
            let what = format!("{} servers before drain_start, got {}", self.count, servers.len());
            return Taken::Refused(RefuseReason::OutOfOrder { what });
        }
        let Some(mut view) = view.take() else {
            return out_of_order("a view before drain_start");
        };
        storage.complete(&mut view);
        let config = Config { timeout_ms: left_ms, modules: storage.module_count(), ..Config::clone(config) };
        match Engine::new(config, servers, view, now, &mut storage.shared) {
            Ok(engine) => {
                self.stage = Stage::Running { engine: Box::new(engine), attempts: Attempts::default() };
                self.wake = Some(now);
                Taken::Started
            }
            Err(EngineError::Invalid { problems }) => Taken::Refused(RefuseReason::Invalid { problems }),
            Err(_) => Taken::Refused(RefuseReason::Failed),
        }
    }

    fn event(&mut self, now: Micros, event: Event, storage: &mut Storage, metrics: &Metrics) {
        let (Stage::Running { engine, attempts } | Stage::Over { engine, attempts, .. }) = &mut self.stage else {
            return;
        };
        if let Event::Released { id } = &event {
            attempts.released(*id);
        }
        let finished = match &event {
            Event::Finished { id, attempt, outcome, .. } => Some((*id, *attempt, outcome.clone())),
            _ => None,
        };
        let taken = engine.on_event(now, event, &mut storage.shared);
        let Some((id, attempt, outcome)) = finished else {
            if taken.is_err() {
                Metrics::count(&metrics.refused, "event");
            }
            return;
        };
        // `Finished` is the answer for a known attempt that ended after the drain.
        if !matches!(taken, Ok(()) | Err(EngineError::Finished)) {
            return Metrics::count(&metrics.refused, "event");
        }
        let name = outcome_name(&outcome);
        debug_assert!(OUTCOMES.contains(&name), "{name}");
        Metrics::count(&metrics.attempts, name);
        let gap = attempts.ended(id, attempt, &outcome, now);
        if let Some(gap) = gap {
            metrics.moved.inc();
            if taken.is_ok() {
                self.pace.record_gap(gap);
                #[expect(clippy::cast_precision_loss, reason = "a duration in seconds")]
                metrics.gap_seconds.observe(gap.0 as f64 / 1e6);
            }
        }
    }
}

fn log_report(report: &Report) {
    let Report { total, moved, retried, attempts, failures, .. } = *report;
    let ended = report.ended.map_or("unknown", handoff_core::Ended::name);
    let left: u64 = report.left.values().sum();
    let (duration_ms, gap_p99_ms) = (report.duration.as_millis(), Micros(report.gap.p99).as_millis());
    let by_reason: Vec<String> =
        report.left.iter().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
    let reasons = by_reason.join(", ");
    let what = if report.balance.is_some() { "rebalance ended" } else { "drain ended" };
    if moved >= report.to_move() {
        info!(ended, total, moved, retried, attempts, failures, duration_ms, gap_p99_ms, "{what}");
    } else {
        warn!(ended, total, moved, left, reasons, retried, attempts, failures, duration_ms, gap_p99_ms, "{what}");
    }
}

fn unknown_module(module: ModuleId) -> Taken {
    Taken::Refused(RefuseReason::Invalid { problems: vec![format!("module {}: has no name in drain_open", module.0)] })
}

fn out_of_order(what: &str) -> Taken {
    Taken::Refused(RefuseReason::OutOfOrder { what: what.to_owned() })
}

fn refused(error: &etf::Error) -> Taken {
    Taken::Refused(match error {
        etf::Error::TooMany { what, takes, .. } => {
            RefuseReason::Full { what: (*what).to_owned(), limit: *takes as u64 }
        }
        other => RefuseReason::OutOfOrder { what: other.to_string() },
    })
}

/// Every name that [`outcome_name`] returns.
pub(super) const OUTCOMES: [&str; 10] = [
    "moved",
    "retry_same",
    "stopping",
    "displaced",
    "untouched",
    "gone",
    "lost_race",
    "not_stored",
    "stop_failed",
    "not_storable",
];

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Moved { .. } => "moved",
        Outcome::RetrySame => "retry_same",
        Outcome::Stopping => "stopping",
        Outcome::Displaced(_) => "displaced",
        Outcome::Untouched(_) => "untouched",
        Outcome::Gone => "gone",
        Outcome::LostRace => "lost_race",
        Outcome::NotStored => "not_stored",
        Outcome::StopFailed => "stop_failed",
        Outcome::NotStorable => "not_storable",
    }
}
