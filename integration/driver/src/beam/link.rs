//! The driver's side of the control connections: frames, and threads that turn sockets into one channel.
//!
//! Frames are bounded, and a connection must present the run's token in its first frame within seconds. So another
//! process of this machine can neither send wrong figures nor block the driver.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etf::Term;

use super::events::{Event, read_hello};
use crate::{Error, Result};

/// The largest frame: the counters of 100,000 servers are under 8 MB.
const MAX_FRAME: usize = 64 << 20;

/// The time limit of the first frame of a new connection.
const HELLO_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub enum Incoming {
    /// A node has connected; commands go into `writer`.
    Connected {
        label: String,
        writer: TcpStream,
    },
    Said {
        label: String,
        event: Result<Event>,
    },
    Closed {
        label: String,
        at_us: u64,
    },
}

/// A listener on the loopback interface whose connections end up in one channel.
#[derive(Debug)]
pub struct Links {
    port: u16,
    closing: Arc<AtomicBool>,
    incoming: Receiver<Incoming>,
}

impl Links {
    /// Listens on a free port for nodes that know `token`.
    pub fn listen(token: String) -> io::Result<Self> {
        Self::listen_with(token, HELLO_WITHIN)
    }

    fn listen_with(token: String, hello_within: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let closing = Arc::new(AtomicBool::new(false));
        let (sender, incoming) = channel();
        let stop = Arc::clone(&closing);
        thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if let Ok(socket) = socket {
                    let (token, sender) = (token.clone(), sender.clone());
                    thread::spawn(move || serve(socket, &token, hello_within, &sender));
                }
            }
        });
        Ok(Self { port, closing, incoming })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn next(&self, patience: Duration) -> Option<Incoming> {
        self.incoming.recv_timeout(patience).ok()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        // `accept` checks the flag only when it returns, so a connection wakes it.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn serve(mut socket: TcpStream, token: &str, hello_within: Duration, sender: &Sender<Incoming>) {
    let greeting = || -> Result<(String, TcpStream)> {
        let io = Error::io("greeting a node");
        let prepared = (|| {
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(hello_within))?;
            let hello = read_frame(&mut &socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            socket.set_read_timeout(None)?;
            Ok((hello, socket.try_clone()?))
        })();
        let (hello, writer) = prepared.map_err(io)?;
        Ok((read_hello(&hello, token)?, writer))
    };
    // The connection is not from one of our nodes, so it is closed without an answer.
    let Ok((label, writer)) = greeting() else { return };
    let mut open = sender.send(Incoming::Connected { label: label.clone(), writer }).is_ok();
    while open {
        let event = match read_frame(&mut socket) {
            Ok(Some(term)) => Event::read(&term),
            Ok(None) | Err(_) => break,
        };
        open = sender.send(Incoming::Said { label: label.clone(), event }).is_ok();
    }
    // The receiver is gone if the cluster was dropped.
    let _ = sender.send(Incoming::Closed { label, at_us: now_us() });
}

/// Reads one frame; `None` at the end of the stream.
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<Term>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    // The frame is decoded without the check, whose limits are for unknown senders: the counters of 100,000
    // servers are more terms than the check accepts.
    Term::decode(bytes.as_slice()).map(Some).map_err(io::Error::other)
}

pub fn write_frame(to: &mut impl Write, term: &Term) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    term.encode(&mut bytes).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    to.write_all(&bytes)
}

/// Microseconds of the wall clock, which the nodes share.
pub fn now_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use etf::{atom, text, tuple, uint};

    use super::*;

    /// The limit of every wait. No step takes nearly this long.
    const PATIENCE: Duration = Duration::from_secs(120);

    /// A test may be delayed for longer than the time limit of the first frame.
    fn listen() -> Links {
        Links::listen_with("secret".into(), PATIENCE).unwrap()
    }

    fn connect(links: &Links, token: &str) -> TcpStream {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, links.port())).unwrap();
        write_frame(&mut socket, &tuple([atom("hello"), text(token), text("node1")])).unwrap();
        socket
    }

    #[test]
    fn a_node_connects_sends_events_and_disconnects() {
        let links = listen();
        let mut socket = connect(&links, "secret");
        assert!(matches!(links.next(PATIENCE), Some(Incoming::Connected { label, .. }) if label == "node1"));

        write_frame(&mut socket, &tuple([atom("calls"), uint(5), uint(1)])).unwrap();
        let said = links.next(PATIENCE);
        assert!(matches!(said, Some(Incoming::Said { event: Ok(Event::Calls { ok: 5, failed: 1 }), .. })), "{said:?}");

        drop(socket);
        let before = now_us();
        assert!(
            matches!(links.next(PATIENCE), Some(Incoming::Closed { at_us, .. }) if at_us.abs_diff(before) < 60_000_000)
        );
    }

    #[test]
    fn a_connection_with_a_wrong_token_is_closed_without_an_event() {
        let links = listen();
        let mut stranger = connect(&links, "guess");
        // The driver closes the connection, so the other side reads its end.
        assert_eq!(stranger.read(&mut [0; 1]).unwrap(), 0);
        let _node = connect(&links, "secret");
        assert!(matches!(links.next(PATIENCE), Some(Incoming::Connected { .. })));
    }

    #[test]
    fn a_connection_that_sends_nothing_is_dropped() {
        let links = Links::listen_with("secret".into(), Duration::from_millis(1)).unwrap();
        let mut silent = TcpStream::connect((Ipv4Addr::LOCALHOST, links.port())).unwrap();
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn an_oversized_frame_is_an_error_and_is_not_allocated() {
        let error = read_frame(&mut [0xff; 8].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_truncated_frame_is_an_error() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &text("hello")).unwrap();
        bytes.pop();
        assert!(read_frame(&mut bytes.as_slice()).is_err());
        assert!(read_frame(&mut [].as_slice()).unwrap().is_none());
    }
}
