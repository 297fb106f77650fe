//! Accepts connections of HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// The pause after a failed accept, for example when the machine has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// The shortest time between two warnings about failed accepts.
const LOG_EVERY: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most connections; more are closed at once.
    pub connections: usize,
    /// The time limit for the head of a request, and between two requests.
    pub head: Duration,
    /// The time limit for a client to read an answer.
    pub answer: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        // More than a probe, a few scrapers, and the pages of all operators need.
        Bounds { connections: 512, head: Duration::from_secs(30), answer: Duration::from_secs(30) }
    }
}

pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds, until: CancellationToken) {
    let room = Arc::new(Semaphore::new(bounds.connections));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(bounds.head);
    let service = TowerToHyperService::new(router);
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = until.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                    logged = Some(Instant::now());
                    warn!(%error, "HTTP cannot accept");
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let connection = builder.serve_connection(TokioIo::new(Answering::new(stream, bounds.answer)), service.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection of HTTP");
            }
            drop(place);
        });
    }
}

/// A connection that fails if the client has not read the whole answer in time.
struct Answering {
    stream: TcpStream,
    at_most: Duration,
    /// Set since the socket had no room for the rest of an answer.
    behind: Option<Pin<Box<Sleep>>>,
}

impl Answering {
    fn new(stream: TcpStream, at_most: Duration) -> Self {
        Answering { stream, at_most, behind: None }
    }

    /// Waits until the deadline of the answer.
    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let at_most = self.at_most;
            ready!(self.behind.get_or_insert_with(|| Box::pin(sleep(at_most))).as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")));
        }
        written
    }
}

impl AsyncRead for Answering {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Answering {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, from);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, from);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when everything was written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.behind = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::body::Bytes;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// Longer than any test waits.
    const LONG: Duration = Duration::from_secs(120);

    /// More than the buffers between two sockets can hold.
    const ENDLESS: usize = 64 * 1024 * 1024;

    async fn serving(bounds: Bounds) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let long = Bytes::from(vec![b'x'; ENDLESS]);
        let router = Router::new().route("/", get(|| async { "here" })).route("/long", get(|| async { long }));
        tokio::spawn(serve(listener, router, bounds, CancellationToken::new()));
        address
    }

    /// A connection on which `text` was sent.
    async fn with(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("accepted");
        // The server may close the connection before.
        let _closed = stream.write_all(bytes).await;
        stream
    }

    /// Reads the answer until the connection ends or is reset.
    async fn rest(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let _reset = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("the connection ends");
        String::from_utf8(answer).expect("text")
    }

    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn connections_above_the_limit_are_closed_and_the_others_are_served() {
        let address = serving(Bounds { connections: 2, head: LONG, answer: LONG }).await;
        let mut first = with(address, b"GET / HTTP/1.1\r\nX: ").await;
        let _second = with(address, b"GET ").await;
        assert_eq!(rest(with(address, WHOLE).await).await, "", "turned away");
        first.write_all(b"y\r\nConnection: close\r\n\r\n").await.expect("sent");
        assert!(rest(first).await.ends_with("here"));
        // The server frees a place shortly after the client sees the end.
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
    #[tokio::test]
    async fn a_client_that_does_not_read_its_answer_or_reads_it_slowly_is_disconnected() {
        let address = serving(Bounds { connections: 2, head: LONG, answer: Duration::from_millis(100) }).await;
        let long = b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n";
        let _reads_nothing = with(address, long).await;
        let mut slow = with(address, long).await;
        let reads_slowly = async {
            let (mut read, mut part) = (0, vec![0; 64 * 1024]);
            while let Ok(bytes @ 1..) = slow.read(&mut part).await {
                read += bytes;
                sleep(Duration::from_millis(10)).await;
            }
            read
        };
        let read = timeout(LONG, reads_slowly).await.expect("the connection ends");
        assert!((1..ENDLESS).contains(&read), "{read} bytes");
        let served = async { while !rest(with(address, WHOLE).await).await.ends_with("here") {} };
        timeout(LONG, served).await.expect("both places are free");
    }
}
