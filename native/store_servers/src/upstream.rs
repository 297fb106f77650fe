//! Any HTTP server behind the proxy. Each request has its own connection, so that a connection that is kept open does
//! not hide the failure of a request.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONNECTION, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Uri, client};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::http::{Answer, LARGEST_BODY, Request};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The address behind a proxy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not an address of the form http://HOST:PORT")]
pub struct InvalidUpstream {
    address: String,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    host: String,
    /// Its own path, which clients put before each key.
    pub(crate) path: String,
}

impl Upstream {
    pub(crate) fn new(address: &str) -> Result<Self, InvalidUpstream> {
        let invalid = || InvalidUpstream { address: address.to_owned() };
        let uri: Uri = address.parse().map_err(|_| invalid())?;
        match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(host)) if *scheme == Scheme::HTTP => Ok(Self {
                host: format!("{}:{}", host.host(), host.port_u16().unwrap_or(80)),
                path: uri.path().trim_end_matches('/').to_owned(),
            }),
            _ => Err(invalid()),
        }
    }

    /// The server's answer; none if the connection fails or ends early.
    pub(crate) async fn answer(&self, request: &Request) -> Option<Answer> {
        let stream = TcpStream::connect(&self.host).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let exchange = async {
            let answer = sender.send_request(forwarded(request)).await.ok()?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST_BODY).collect().await.ok()?.to_bytes();
            let mut headers = head.headers;
            for hop in [CONNECTION, KEEP_ALIVE, TRANSFER_ENCODING] {
                headers.remove(hop);
            }
            Some(Answer { status: head.status, headers, body, cut: false })
        };
        tokio::select! {
            biased;
            answer = exchange => answer,
            // Nothing is sent or received unless the connection is polled. The exchange reports the end of
            // the connection.
            () = async { let _ended = connection.await; std::future::pending().await } => None,
        }
    }
}

/// The same request with the same host header, which is part of the signature.
fn forwarded(request: &Request) -> hyper::Request<Full<Bytes>> {
    let mut forwarded = hyper::Request::new(Full::new(request.body.clone()));
    *forwarded.method_mut() = request.method.clone();
    let path = request.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *forwarded.uri_mut() = Uri::from(path);
    *forwarded.headers_mut() = request.headers.clone();
    forwarded.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    forwarded
}
