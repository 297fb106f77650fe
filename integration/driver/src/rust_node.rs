//! A run's Rust node: `durable-handoff-node run`, built from this workspace. It ends with the run.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command as Program;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::process::Process;
use crate::{Error, Result};

/// The name of the program, which is in the directory of the driver.
const PROGRAM: &str = "durable-handoff-node";

/// The time limit of its HTTP answers.
const HTTP_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct RustNode {
    pub name: String,
    process: Process,
    http: Option<SocketAddr>,
    told_to_stop: bool,
}

impl RustNode {
    /// Starts a Rust node that connects to these nodes and finds the others through them. Its cookie is in a
    /// file in `scratch` that only this user can read.
    pub fn spawn(name: &str, connect: &[String], cookie: &str, scratch: &Path, log: &Path) -> Result<Self> {
        let cookie_file = scratch.join(format!("cookie-{name}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&cookie_file)
            .and_then(|mut file| file.write_all(cookie.as_bytes()))
            .map_err(Error::io("writing the Rust node's cookie file"))?;

        let program = std::env::current_exe().map_err(Error::io("finding the driver's own program"))?;
        let program = program.with_file_name(PROGRAM);
        let mut command = Program::new(&program);
        command
            .args(["run", "--name", name, "--connect", &connect.join(","), "--http", "127.0.0.1:0"])
            .args(["--log-format", "json", "--cookie-file"])
            .arg(&cookie_file);
        let process = Process::spawn(command, log).map_err(|source| Error::RustNodeMissing { program, source })?;
        Ok(Self { name: name.to_owned(), process, http: None, told_to_stop: false })
    }

    /// Whether it is connected to a BEAM node and accepts drains.
    pub fn is_ready(&mut self) -> bool {
        if self.http.is_none() {
            self.http = address(&self.process.log());
        }
        self.http.is_some_and(|address| matches!(get(address, "/readyz"), Ok(answer) if answer.contains(" 200 ")))
    }

    pub fn kill(&mut self) -> Result<()> {
        self.told_to_stop = true;
        self.process.kill().map_err(Error::io("ending the Rust node"))
    }

    /// Pauses it: it keeps its connections and sends nothing.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP).map_err(Error::io("pausing the Rust node"))
    }

    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT).map_err(Error::io("resuming the Rust node"))
    }

    /// The error for a Rust node that ended although the driver did not stop it.
    pub fn ended(&mut self, doing: &str) -> Option<Error> {
        let status = self.process.status().ok().flatten().filter(|_| !self.told_to_stop)?.to_string();
        Some(Error::NodeEnded {
            node: self.name.clone(),
            doing: doing.to_owned(),
            status,
            log: self.process.log_tail(),
        })
    }
}

/// The address of its HTTP service, once the log has it: it uses any free port.
fn address(log: &str) -> Option<SocketAddr> {
    log.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields")?;
        (fields.get("message")? == "serving HTTP").then(|| fields.get("address")?.as_str()?.parse().ok())?
    })
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, HTTP_WITHIN)?;
    socket.set_read_timeout(Some(HTTP_WITHIN))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_the_log() {
        let log = r#"{"level":"INFO","fields":{"message":"accepting connections","address":"127.0.0.1:1"}}
not json
{"level":"INFO","fields":{"message":"serving HTTP","address":"127.0.0.1:41234"},"target":"x"}"#;
        assert_eq!(address(log), Some("127.0.0.1:41234".parse().unwrap()));
        assert_eq!(address("{}"), None);
    }
}
