//! Resident memory of the node with many registered servers.

use anyhow::Context;
use handoff_core::{Config, ModuleId, NodeView, ServerSpec, Source, StickyId};
use handoff_wire::servers::PER_CHUNK;
use handoff_wire::{DrainId, DrainOpen, DrainStart, Keepalive, Message, NODE_PROCESS, Servers, ViewPart};
use rust_node::distribution::dial::dial;
use rust_node::distribution::{Inbound, Mailbox, Process, names};
use serde::Serialize;
use tokio::time::timeout;

use crate::beam::{SOON, get, node, own_node, unique, until};

const ID: DrainId = DrainId(1);

#[derive(Debug, Serialize)]
pub struct Memory {
    servers: u32,
    before_bytes: u64,
    /// Memory when all servers were received and the first orders were sent.
    registered_bytes: u64,
}

/// Registers `count` servers and measures the memory.
pub async fn measure(count: u32) -> anyhow::Result<Memory> {
    let name = unique("node", "127.0.0.1");
    let arguments = ["--name", &name, "--listen", "127.0.0.1:0"].map(str::to_owned);
    let (process, http) = node(&arguments)?;
    let own = unique("source", "127.0.0.1");
    let source = own_node(&own, None)?;
    let mut mailbox = source.register("drain").context("the name is free")?;
    until("connected", async || Ok(dial(&source, &names::parse(&name)?.into()).await.is_ok())).await?;
    let before_bytes = process.memory()?;
    let to = Process::Name(NODE_PROCESS.to_owned());
    let pid = mailbox.pid.clone();
    let tell = async |message: Message| -> anyhow::Result<()> {
        source.send(&name, &pid, &to, message.to_term())?;
        source.flushed(SOON).await;
        Ok(())
    };
    let config = Config { source: Source { name: own, ..Source::default() }, modules: 1, ..Config::default() };
    let open = DrainOpen {
        id: ID,
        drainer: pid.clone(),
        supervisor: "Bench".to_owned(),
        storage: "bench".to_owned(),
        count,
        modules: vec!["M".to_owned()],
        config: Config { stickies: vec![vec![]], ..config },
    };
    tell(open.into()).await?;
    let server = ServerSpec { module: ModuleId(0), sticky: StickyId(0), priority: 0 };
    for first in (0..count).step_by(PER_CHUNK) {
        let servers = vec![server; PER_CHUNK.min((count - first) as usize)];
        tell(Servers { id: ID, first, servers }.into()).await?;
    }
    let target = NodeView { name: "t@127.0.0.1".to_owned(), connected: true, ..NodeView::default() };
    tell(ViewPart { id: ID, part: 1, parts: 1, now_ms: 0, nodes: vec![target] }.into()).await?;
    tell(DrainStart { id: ID, left_ms: 60_000 }.into()).await?;
    orders(&mut mailbox).await?;
    tell(Keepalive { id: ID }.into()).await?;
    anyhow::ensure!(get(http, "/drains").await?.contains(&format!("\"total\":{count}")), "it has them all");
    let registered_bytes = process.memory()?;
    source.stop();
    Ok(Memory { servers: count, before_bytes, registered_bytes })
}

async fn orders(mailbox: &mut Mailbox) -> anyhow::Result<()> {
    loop {
        if let Some(Inbound::Message(delivery)) = timeout(SOON, mailbox.receive()).await.context("no orders")? {
            match Message::from_checked(&delivery.payload)? {
                Message::Orders(_) => return Ok(()),
                Message::Refuse(refuse) => anyhow::bail!("refused: {}", refuse.reason),
                _ => {}
            }
        }
    }
}

impl Memory {
    pub fn table(&self) -> String {
        let mb = |bytes: u64| format!("{}.{} MB", bytes / 1_048_576, bytes % 1_048_576 * 10 / 1_048_576);
        let each = self.registered_bytes.saturating_sub(self.before_bytes) / u64::from(self.servers.max(1));
        format!(
            "Resident memory of the node\nwithout a drain           {}\nwith {} servers      {}  ({each} bytes a server)\n",
            mb(self.before_bytes),
            self.servers,
            mb(self.registered_bytes),
        )
    }
}
