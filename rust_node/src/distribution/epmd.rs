//! EPMD, the port mapper: looks up the ports of nodes, and registers this node.
//!
//! Guarantee: a registration lasts as long as [`Registration`] is kept; when the port mapper restarts, the
//! node registers again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use erl_dist::epmd::{EpmdClient, EpmdError, NodeEntry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tracing::{info, warn};

use super::hosts;

/// The pause between attempts to register again.
const AGAIN: Duration = Duration::from_secs(1);
/// The most bytes that are read of the list of names on a machine; enough for hundreds of names.
const NAMES: u64 = 64 * 1024;
/// The time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortMapperError {
    #[error("EPMD on {host}:{port}: {source}")]
    Io { host: String, port: u16, source: std::io::Error },
    #[error("EPMD on {host}: {source}")]
    Answer { host: String, source: EpmdError },
    #[error("EPMD on {host} knows no node {name}")]
    Unknown { host: String, name: String },
    #[error("EPMD on {host} does not register {name}: another node of that name may run there")]
    Taken { host: String, name: String },
    #[error("EPMD on {host} does not answer")]
    Timeout { host: String },
}

/// The port of node `name` on `host`, which has these addresses.
pub async fn lookup(host: &str, addresses: &[IpAddr], epmd_port: u16, name: &str) -> Result<u16, PortMapperError> {
    let ask = async {
        let client = EpmdClient::new(connect(host, addresses, epmd_port).await?);
        client.get_node(name).await.map_err(|source| PortMapperError::Answer { host: host.to_owned(), source })
    };
    match tokio::time::timeout(TIMEOUT, ask).await {
        Ok(Ok(Some(entry))) => Ok(entry.port),
        Ok(Ok(None)) => Err(PortMapperError::Unknown { host: host.to_owned(), name: name.to_owned() }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(PortMapperError::Timeout { host: host.to_owned() }),
    }
}

/// The names of the nodes on `host`, of either kind, as far as they fit into [`NAMES`] bytes.
pub async fn names(host: &str, addresses: &[IpAddr], epmd_port: u16) -> Result<Vec<String>, PortMapperError> {
    let failed = |source| PortMapperError::Io { host: host.to_owned(), port: epmd_port, source };
    let ask = async {
        let mut stream = connect(host, addresses, epmd_port).await?.into_inner();
        stream.write_all(&[0, 1, b'n']).await.map_err(failed)?;
        // EPMD lists its own port as well.
        stream.read_u32().await.map_err(failed)?;
        let mut text = Vec::new();
        stream.take(NAMES).read_to_end(&mut text).await.map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        let name = |line: &str| Some(line.strip_prefix("name ")?.split_once(" at port ")?.0.to_owned());
        Ok(text.lines().filter_map(name).collect())
    };
    match tokio::time::timeout(TIMEOUT, ask).await {
        Ok(names) => names,
        Err(_) => Err(PortMapperError::Timeout { host: host.to_owned() }),
    }
}

/// This node's entry in EPMD of its machine. Dropping it removes the entry.
#[derive(Debug)]
pub struct Registration {
    /// The incarnation that EPMD has assigned.
    pub creation: u32,
    /// Whether the port mapper knows this node now.
    pub registered: watch::Receiver<bool>,
    keeper: JoinHandle<()>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Registers this node as hidden, and again whenever EPMD has lost the registration. Only a failure of the
/// first registration is an error; later ones are logged, and it tries again.
pub async fn register(epmd_port: u16, name: &str, port: u16) -> Result<Registration, PortMapperError> {
    let (connection, creation) = register_once(epmd_port, name, port).await?;
    let name = name.to_owned();
    let (is_registered, registered) = watch::channel(true);
    let keeper = tokio::spawn(async move {
        let mut connection = connection.into_inner();
        loop {
            // EPMD sends nothing after its answer: anything that arrives is the end of the connection.
            let _end = connection.read_u8().await;
            is_registered.send_replace(false);
            warn!("EPMD is gone, registering again");
            connection = loop {
                tokio::time::sleep(AGAIN).await;
                if let Ok((again, _)) = register_once(epmd_port, &name, port).await {
                    is_registered.send_replace(true);
                    info!("registered in EPMD again");
                    break again.into_inner();
                }
            };
        }
    });
    Ok(Registration { creation, registered, keeper })
}

async fn register_once(epmd_port: u16, name: &str, port: u16) -> Result<(Compat<TcpStream>, u32), PortMapperError> {
    let host = "localhost";
    // `localhost` is not resolved, because EPMD may listen in one address family while the machine resolves
    // the name only to the other.
    let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let ask = async {
        let client = EpmdClient::new(connect(host, &addresses, epmd_port).await?);
        let entry = NodeEntry::new_hidden(name, port);
        client.register(entry).await.map_err(|source| match source {
            EpmdError::RegisterNodeError { .. } => {
                PortMapperError::Taken { host: host.to_owned(), name: name.to_owned() }
            }
            source => PortMapperError::Answer { host: host.to_owned(), source },
        })
    };
    match tokio::time::timeout(TIMEOUT, ask).await {
        Ok(Ok((connection, creation))) => Ok((connection, creation.get())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(PortMapperError::Timeout { host: host.to_owned() }),
    }
}

async fn connect(host: &str, addresses: &[IpAddr], port: u16) -> Result<Compat<TcpStream>, PortMapperError> {
    match hosts::connect(addresses, port).await {
        Ok(stream) => Ok(stream.compat()),
        Err(source) => Err(PortMapperError::Io { host: host.to_owned(), port, source }),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    async fn listening(address: IpAddr) -> (TcpListener, u16) {
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        (listener, port)
    }

    #[tokio::test]
    async fn names_without_end_are_cut_and_lines_of_another_form_are_left_out() {
        for address in LOOPBACK {
            let (listener, port) = listening(address).await;
            let serving = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("asked");
                stream.write_all(&[0, 0, 0x11, 0x11]).await.expect("sent");
                // Writes until the reader closes.
                while stream.write_all(b"name a at port 1\nname b\n\xff\xff at port 2\n").await.is_ok() {}
            });
            let known = names("localhost", &[address], port).await.expect("an answer");
            assert!(known.len() > 1 && known.len() < 64 * 1024 && known.iter().all(|name| name == "a"));
            serving.await.expect("the connection was closed");
        }
    }

    #[tokio::test]
    async fn answers_about_a_port_that_are_cut_wrong_or_without_end_are_errors() {
        // An answer that announces the longest possible name and then ends.
        const LONG: [u8; 12] = [119, 0, 0x11, 0x11, 77, 0, 0, 6, 0, 5, 0xff, 0xff];
        let cases: [(&[u8], usize); 5] = [(&[], 0), (&[119], 1), (&[0xff; 64], 1), (&LONG, 1), (&[110, 0], 10_000)];
        for address in LOOPBACK {
            for (answer, times) in cases {
                let (listener, port) = listening(address).await;
                let serving = tokio::spawn(async move {
                    let (mut stream, _) = listener.accept().await.expect("asked");
                    // Reads the whole question, because closing with unread data would reset the connection
                    // and lose the answer.
                    let mut question = vec![0; usize::from(stream.read_u16().await.expect("asked"))];
                    stream.read_exact(&mut question).await.expect("asked");
                    for _ in 0..times {
                        if stream.write_all(answer).await.is_err() {
                            break;
                        }
                    }
                });
                let error = lookup("localhost", &[address], port, "app").await.expect_err("no port");
                let wrong = matches!(error, PortMapperError::Answer { .. } | PortMapperError::Io { .. });
                assert!(wrong, "{answer:?} at {address}: {error}");
                serving.await.expect("served");
            }
        }
    }
}
