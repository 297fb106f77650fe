//! The least of an HTTP/1.1 server for the stubs beside it: whole requests on kept connections, answered by a function.
//! It believes what it is told, and is for tests and measurements only.

use std::io::Write;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request, its body read.
pub struct Request {
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _value)| known == name).map(|(_name, value)| value.as_str())
    }
}

/// Prints the server's address and serves until standard input ends, so that it ends with whoever started it.
pub async fn serve(answer: impl Fn(Request, &mut Vec<u8>) + Send + Sync + 'static) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "http://{}", listener.local_addr()?)?;
    let answer = Arc::new(answer);
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _address) = accepted?;
                client.set_nodelay(true)?;
                // A client that goes away ends its connection, not the server.
                tokio::spawn(converse(client, Arc::clone(&answer)));
            }
            read = input.read(&mut ignored) => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// Writes an answer. `length` is told apart from the body because an answer to HEAD has the one and not the other.
pub fn write(out: &mut Vec<u8>, status: &str, headers: &[(&str, &str)], length: usize, body: &[u8]) {
    // Writing to memory does not fail.
    let _written = write!(out, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        let _written = write!(out, "{name}: {value}\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

async fn converse(client: TcpStream, answer: Arc<impl Fn(Request, &mut Vec<u8>)>) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut out = Vec::new();
    while let Some(request) = read(&mut client).await? {
        let last = request.header("connection").is_some_and(|said| said.eq_ignore_ascii_case("close"));
        out.clear();
        answer(request, &mut out);
        if last {
            say_so(&mut out);
        }
        client.get_mut().write_all(&out).await?;
        if last {
            break;
        }
    }
    Ok(())
}

/// Tells the client that the connection ends with this answer: one that it believes to be kept would lose it the next request.
fn say_so(out: &mut Vec<u8>) {
    if let Some(first_line) = out.windows(2).position(|bytes| bytes == b"\r\n") {
        out.splice(first_line..first_line, *b"\r\nconnection: close");
    }
}

async fn read(client: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if client.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse().unwrap_or(0);
        }
        headers.push((name, value));
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).await?;
    Ok(Some(Request { method, target, headers, body }))
}
