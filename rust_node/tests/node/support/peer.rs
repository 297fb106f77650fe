//! A peer whose messages the test chooses.

use etf::{Pid, Term};
use handoff_wire::{Message, NODE_PROCESS};
use rust_node::distribution::control::{self, Control};
use rust_node::distribution::frame::{self, Frame};
use rust_node::distribution::handshake::{self, HandshakeError, Prefix};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{COOKIE, Node, SOON, local, name, node_name};

/// A peer whose handshake is complete. A test chooses its messages.
pub struct Peer {
    pub stream: TcpStream,
    pub name: String,
    pub pid: Pid,
    buffer: Vec<u8>,
}

impl Peer {
    pub async fn connect(node: &Node) -> Peer {
        Peer::connect_as(node, &node_name("peer"), COOKIE).await.expect("let in")
    }

    pub async fn connect_as(node: &Node, own: &str, cookie: &str) -> Result<Peer, HandshakeError> {
        Peer::connect_over(TcpStream::connect((node.address, node.port)).await?, node, own, cookie).await
    }

    /// As `connect`, over the given connection.
    pub async fn connect_over(stream: TcpStream, node: &Node, own: &str, cookie: &str) -> Result<Peer, HandshakeError> {
        let local = local(own, cookie);
        let (stream, _) = handshake::connect(stream, Prefix::Two, &local, &name(&node.name)).await?;
        let pid = Pid { node: own.into(), id: 1, serial: 0, creation: local.creation };
        Ok(Peer { stream, name: own.to_owned(), pid, buffer: Vec::new() })
    }

    /// Sends control part and payload unchanged.
    pub async fn raw(&mut self, control: &Term, payload: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&framed(control, payload)).await
    }

    /// Sends to a registered name.
    pub async fn send_to(&mut self, process: &str, payload: &[u8]) -> std::io::Result<()> {
        self.raw(&self.reg_send(process), payload).await
    }

    fn reg_send(&self, process: &str) -> Term {
        let unused = etf::atom("");
        etf::tuple([etf::uint(6), self.pid.clone().into(), unused, etf::atom(process)])
    }

    /// Sends a request whose answer has `length` bytes, and does not read the answer.
    pub async fn ask_for(&mut self, length: usize) -> std::io::Result<()> {
        self.send_ping(etf::binary(vec![7; length])).await
    }

    /// Sends a ping. The answer to it repeats the tag.
    async fn send_ping(&mut self, tag: Term) -> std::io::Result<()> {
        let from = etf::tuple([self.pid.clone().into(), tag]);
        let question = etf::tuple([etf::atom("is_auth"), etf::atom(&self.name)]);
        let request = etf::tuple([etf::atom("$gen_call"), from, question]);
        self.send_to("net_kernel", &etf::encode(&request).expect("encodes")).await
    }

    pub async fn tell(&mut self, message: impl Into<Message>) {
        self.tell_all([message.into()]).await;
    }

    /// Sends all messages in one write.
    pub async fn tell_all(&mut self, messages: impl IntoIterator<Item = Message>) {
        let control = self.reg_send(NODE_PROCESS);
        let frame = |message: Message| framed(&control, &message.to_bytes().expect("encodes"));
        let frames: Vec<u8> = messages.into_iter().flat_map(frame).collect();
        self.stream.write_all(&frames).await.expect("sent");
    }

    /// The next message; ticks are skipped. `None` means that the node closed the connection.
    pub async fn receive(&mut self) -> Option<(Control, Vec<u8>)> {
        let wait = async {
            loop {
                match frame::read(&mut self.stream, &mut self.buffer, 1 << 24).await {
                    Ok(Frame::Tick) => {}
                    Ok(Frame::Message(message)) => {
                        let (control, payload) = control::parse(message).expect("the node sends what it takes");
                        return Some((control, payload.map_or_else(Vec::new, |payload| payload.as_bytes().to_vec())));
                    }
                    Err(_) => return None,
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("an answer or the end, in time")
    }

    /// The next drain message. Other messages are skipped.
    pub async fn hear(&mut self) -> Message {
        loop {
            let (_, payload) = self.receive().await.expect("connected");
            if let Ok(message) = Message::from_bytes(&payload) {
                return message;
            }
        }
    }

    /// True when the node answers a ping over this connection.
    pub async fn ping(&mut self) -> bool {
        let tag = etf::uint(rand::random());
        if self.send_ping(tag.clone()).await.is_err() {
            return false;
        }
        let expected = etf::encode(&etf::tuple([tag, etf::atom("yes")])).expect("encodes");
        while let Some((_, payload)) = self.receive().await {
            if payload == expected {
                return true;
            }
        }
        false
    }
}

fn framed(control: &Term, payload: &[u8]) -> Vec<u8> {
    let frame = frame::build(|out| {
        out.extend(etf::encode(control)?);
        out.extend(payload);
        Ok::<_, etf::Error>(())
    });
    frame.expect("encodes")
}
