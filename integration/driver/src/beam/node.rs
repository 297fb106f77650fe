//! One node: its process, its control connection, and its state.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command as Program;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::commands::Command;
use super::events::Versions;
use super::link::{now_us, write_frame};
use super::node_config::{Common, NodeConfig};
use crate::process::Process;
use crate::settings::Settings;
use crate::{Error, Result};

/// How long a node that closed its connection may take to exit before its failure is reported without a
/// status.
const LAST_WORDS: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Node {
    pub config: NodeConfig,
    /// Its full name.
    pub name: String,
    pub versions: Option<Versions>,
    pub up_us: Option<u64>,
    pub gone_us: Option<u64>,
    process: Process,
    /// Its processor time at the last measurement.
    cpu_ms: f64,
    control: Option<TcpStream>,
    told_to_stop: bool,
    /// Whether it restarts inside its virtual machine.
    restarts: bool,
}

impl Node {
    /// Starts a node; it connects by itself.
    pub fn spawn(config: NodeConfig, common: &Common, settings: &Settings, logs: &Path) -> Result<Self> {
        let name = common.full_name(&config.label);
        let mut elixir = Program::new(&config.elixir);
        elixir
            .args(["--erl", &emulator_flags(settings)])
            .args(["--name", &name, "--no-halt", "-e", "HandoffDemo.Main.run()"])
            // Passed in the environment, because every user of the machine can read arguments.
            .env("ERL_AFLAGS", format!("-setcookie {}", common.cookie))
            .env("HANDOFF_DEMO_NODE", config.to_hex(common, settings))
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("LC_ALL", "C.UTF-8");
        if config.clock_ahead_s > 0 {
            set_clock(&mut elixir, config.clock_ahead_s)?;
        }
        let log = logs.join(format!("{}-{}.log", common.variant.slug(), config.label));
        let command = config.elixir.clone();
        let process = Process::spawn(elixir, &log).map_err(|source| Error::ElixirMissing { command, source })?;
        Ok(Self {
            config,
            name,
            versions: None,
            up_us: None,
            gone_us: None,
            process,
            cpu_ms: 0.0,
            control: None,
            told_to_stop: false,
            restarts: false,
        })
    }

    pub fn connected(&mut self, control: TcpStream) {
        self.control = Some(control);
    }

    pub fn ready(&mut self, versions: Versions) {
        self.versions = Some(versions);
        self.up_us = Some(now_us());
        self.told_to_stop &= !self.restarts;
    }

    /// Records that its connection is closed. Returns whether the driver had stopped it.
    pub fn closed(&mut self, at_us: u64) -> bool {
        self.control = None;
        self.gone_us = Some(at_us);
        if self.restarts {
            self.versions = None;
        }
        self.told_to_stop
    }

    pub fn is_connected(&self) -> bool {
        self.control.is_some()
    }

    pub fn was_told_to_stop(&self) -> bool {
        self.told_to_stop
    }

    pub fn send(&mut self, number: u64, command: &Command) -> Result<()> {
        let sent = match &mut self.control {
            Some(socket) => write_frame(socket, &command.to_term(number)),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        sent.map_err(Error::io(format!("sending {} to {}", command.name(), self.config.label)))
    }

    /// Records that a command tells it to stop. Returns when.
    pub fn stops(&mut self) -> u64 {
        self.told_to_stop = true;
        now_us()
    }

    /// Records that a command tells it to restart. Returns when.
    pub fn restarts(&mut self) -> u64 {
        self.restarts = true;
        self.stops()
    }

    /// Sends SIGTERM, as a deploy does. Returns when.
    pub fn sigterm(&mut self) -> Result<u64> {
        self.told_to_stop = true;
        let at_us = now_us();
        self.process.sigterm().map_err(Error::io(format!("sending SIGTERM to {}", self.config.label)))?;
        Ok(at_us)
    }

    /// Pauses it: it keeps its connections and answers nothing.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP).map_err(Error::io(format!("pausing {}", self.config.label)))
    }

    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT).map_err(Error::io(format!("resuming {}", self.config.label)))
    }

    pub fn kill(&mut self) -> Result<()> {
        self.told_to_stop = true;
        self.process.kill().map_err(Error::io(format!("ending {}", self.config.label)))
    }

    /// Closes its connection, which makes the node halt.
    pub fn hang_up(&mut self) {
        self.told_to_stop = true;
        if let Some(socket) = self.control.take() {
            // An error means that the node has closed it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Its processor time in milliseconds; for an ended node, the last measurement.
    pub fn cpu_ms(&mut self) -> f64 {
        self.cpu_ms = self.process.cpu_ms().unwrap_or(self.cpu_ms);
        self.cpu_ms
    }

    /// Whether it has ended (connection closed, process waited for), or has begun to restart.
    pub fn has_ended(&mut self) -> Result<bool> {
        self.cpu_ms();
        let status = self.process.status().map_err(Error::io(format!("waiting for {}", self.config.label)))?;
        Ok((status.is_some() || self.restarts) && self.gone_us.is_some())
    }

    /// Whether it has ended without ever having connected, which leaves no other trace.
    pub fn never_came(&mut self) -> bool {
        let expected = self.control.is_none() && self.gone_us.is_none() && !self.told_to_stop;
        expected && matches!(self.process.status(), Ok(Some(_)))
    }

    /// The error for a node that ends although the driver did not stop it.
    pub fn last_words(&mut self, doing: &str) -> Error {
        let until = Instant::now() + LAST_WORDS;
        let status = loop {
            match self.process.status() {
                Ok(Some(status)) => break status.to_string(),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                _ => break "its process still runs".to_owned(),
            }
        };
        let node = self.config.label.clone();
        Error::NodeEnded { node, doing: doing.to_owned(), status, log: self.process.log_tail() }
    }
}

fn emulator_flags(settings: &Settings) -> String {
    // No busy waiting: the schedulers of all nodes share this machine's few cores.
    let flags = "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}";
    let partitions = if settings.partitions { " -kernel prevent_overlapping_partitions false" } else { "" };
    format!("{flags}{partitions}")
}

/// The path of Debian's libfaketime, on the architectures that tests run on.
const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// Changes the wall clock of everything in a node: DurableServer, the library, and Erlang itself.
fn set_clock(node: &mut Program, ahead_s: u32) -> Result<()> {
    let library = FAKETIME.iter().find(|path| Path::new(path).exists()).ok_or(Error::FaketimeMissing)?;
    node.env("LD_PRELOAD", library).env("FAKETIME", format!("+{ahead_s}s")).env("DONT_FAKE_MONOTONIC", "1");
    Ok(())
}
