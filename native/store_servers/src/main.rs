//! `store-servers`: one object storage server for tests, until standard input ends.
//!
//! Its first line of output is its address. Then it takes commands from standard input, see `store_servers::control`.

use std::io::Write;

use clap::{Parser, Subcommand};
use store_servers::{Backend, Flaw, Server, control};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// The longest command.
const LONGEST_LINE: u64 = 1024 * 1024;

/// One object storage server for tests on a loopback port, until standard input ends. Its address is the first line of output.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// S3 in memory, with the bucket `handoff`.
    S3 {
        /// A flaw of the server; can be given several times.
        #[arg(long, value_enum)]
        flaw: Vec<Flaw>,
    },
    /// Google Cloud Storage in memory, with the bucket `handoff` and the token `test`.
    Google,
    /// Passes everything on to another server.
    Proxy {
        /// For example http://127.0.0.1:9000.
        address: String,
    },
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Upstream(#[from] store_servers::InvalidUpstream),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let backend = match Arguments::parse().kind {
        Kind::S3 { flaw } => Backend::s3(flaw),
        Kind::Google => Backend::google(),
        Kind::Proxy { address } => Backend::proxy(&address)?,
    };
    let server = Server::start(backend).await?;
    say(server.endpoint())?;
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut input).take(LONGEST_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        say(&control(&server, line.trim()))?;
    }
}

fn say(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
