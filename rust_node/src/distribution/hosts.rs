//! Connects to a host that has several addresses.
//!
//! Guarantee: the host is reached if one of its addresses answers. The next address is tried [`STAGGER`]
//! after the one before, or at once when that one has failed (RFC 8305, without its preferences).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The delay between the starts of two attempts.
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to that port at each of the addresses. The first connection wins; without one, the error is that
/// of the address that failed last.
pub(super) async fn connect(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut left = addresses.iter();
    let mut attempts = JoinSet::new();
    let mut last: io::Error = io::ErrorKind::AddrNotAvailable.into();
    loop {
        let next = left.next();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect((*address, port)));
        }
        let ended = match next {
            Some(_) => timeout(STAGGER, attempts.join_next()).await.ok(),
            None => Some(attempts.join_next().await),
        };
        match ended {
            Some(Some(Ok(Ok(stream)))) => return Ok(stream),
            Some(Some(Ok(Err(error)))) => last = error,
            Some(Some(Err(cancelled))) => last = io::Error::other(cancelled),
            Some(None) => return Err(last),
            // The next address is tried while earlier attempts continue.
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn a_host_whose_first_addresses_do_not_answer_is_reached_at_another() {
        // Keeps the port of all addresses from other tests.
        let held = TcpSocket::new_v6().expect("a socket");
        held.set_reuseaddr(true).expect("set");
        held.bind((Ipv6Addr::UNSPECIFIED, 0).into()).expect("a port");
        let port = held.local_addr().expect("an address").port();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("it is held for this");
        // Nothing listens at the first address. The second is reserved for documentation: packets to it are
        // lost, or the machine has no route to it.
        let refused = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let lost: IpAddr = "192.0.2.1".parse().expect("an address");
        let stream = connect(&[refused, lost, Ipv4Addr::LOCALHOST.into()], port).await.expect("connected");
        assert_eq!(stream.peer_addr().expect("connected").ip(), Ipv4Addr::LOCALHOST);
        let error = connect(&[refused], port).await.expect_err("nothing listens there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect(&[], port).await.is_err());
    }
}
