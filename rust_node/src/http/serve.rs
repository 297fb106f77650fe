//! Accepts connections of HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// The pause after a failed accept, for example when the machine has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// What clients can hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections; more are closed at once.
    pub connections: usize,
    /// For the head of a request, and between two requests.
    pub head: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        // A probe, a few scrapers, and a page for each operator.
        Bounds { connections: 512, head: Duration::from_secs(30) }
    }
}

/// Serves until it is cancelled.
pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds, until: CancellationToken) {
    let room = Arc::new(Semaphore::new(bounds.connections));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(bounds.head);
    let service = TowerToHyperService::new(router);
    loop {
        let accepted = tokio::select! {
            () = until.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "HTTP cannot accept");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let connection = builder.serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection of HTTP");
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// No test waits that long.
    const LONG: Duration = Duration::from_secs(120);

    async fn serving(bounds: Bounds) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(serve(listener, router, bounds, CancellationToken::new()));
        address
    }

    /// A connection on which that was sent.
    async fn with(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("accepted");
        // It may be turned away before.
        let _closed = stream.write_all(bytes).await;
        stream
    }

    /// All that is answered until the end of the connection, or until it is reset.
    async fn rest(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let _reset = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("the connection ends");
        String::from_utf8(answer).expect("text")
    }

    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn more_connections_than_there_may_be_are_closed_and_the_others_are_served() {
        let address = serving(Bounds { connections: 2, head: LONG }).await;
        let mut first = with(address, b"GET / HTTP/1.1\r\nX: ").await;
        let _second = with(address, b"GET ").await;
        assert_eq!(rest(with(address, WHOLE).await).await, "", "turned away");
        first.write_all(b"y\r\nConnection: close\r\n\r\n").await.expect("sent");
        assert!(rest(first).await.ends_with("here"));
        // Its place is free shortly after its end is seen.
        let again = async { while !rest(with(address, WHOLE).await).await.ends_with("here") {} };
        timeout(LONG, again).await.expect("there is room again");
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_and_a_connection_without_one_are_closed() {
        let address = serving(Bounds { head: Duration::from_millis(50), ..Bounds::default() }).await;
        for begun in [&b""[..], b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET"] {
            let answer = rest(with(address, begun).await).await;
            assert!(!answer.contains("400") && answer.matches("here").count() <= 1, "{answer}");
        }
        let address = serving(Bounds::default()).await;
        assert!(rest(with(address, WHOLE).await).await.ends_with("here"));
    }
}
