//! The listener, which applies the script's rules to requests.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::credentials::Credentials;
use crate::http::{Answer, LARGEST_BODY, Request};
use crate::{Backend, Kind, Rule, Script, Then};

const MAX_CONNECTIONS: usize = 1_024;
/// The pause after a failed accept: without file descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A server on a loopback port of its own. It ends when the value is dropped.
#[derive(Debug)]
pub struct Server {
    endpoint: String,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug)]
struct State {
    script: Script,
    credentials: Credentials,
    backend: Backend,
}

impl Server {
    /// Starts a server on the current runtime.
    pub async fn start(backend: Backend) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = format!("http://{}{}", listener.local_addr()?, backend.path());
        let state = Arc::new(State { script: Script::default(), credentials: Credentials::default(), backend });
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Ok(Self { endpoint, state, task })
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn script(&self) -> &Script {
        &self.state.script
    }

    /// Sets how many seconds new credentials last. An hour by default.
    pub fn credentials_last(&self, seconds: u64) {
        self.state.credentials.last(seconds);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _address)) => {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    serve(stream, state).await;
                    drop(permit);
                });
            }
            Err(_no_connection) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let _slower = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { exchange(request, &state).await.ok_or(Cut) }
    });
    // An error is a client that went away, or an answer that was cut.
    let _ended = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The end of a connection, as an error for hyper, which then sends nothing.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct Cut;

async fn exchange(request: hyper::Request<Incoming>, state: &State) -> Option<Response<Either<Full<Bytes>, Half>>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, LARGEST_BODY).collect().await.ok()?.to_bytes();
    let mut request = Request { method: head.method, uri: head.uri, headers: head.headers, body };
    let answer = state.answer(&mut request).await?;
    Some(response(answer, &request.method))
}

impl State {
    async fn answer(&self, request: &mut Request) -> Option<Answer> {
        let _open = self.script.open();
        let kind = Kind::of(request);
        let Some(rule) = self.script.take(kind, request) else { return self.apply(kind, request).await };
        if rule.hold {
            self.script.hold().await;
        }
        tokio::time::sleep(Duration::from_millis(rule.delay_ms)).await;
        for name in &rule.strip {
            request.headers.remove(name);
        }
        let answer = match rule.then {
            Then::Pass | Then::CutBody => Some(self.apply(kind, request).await?),
            _ if rule.applied => self.apply(kind, request).await,
            _ => None,
        };
        self.seen_by_client(rule, answer).await
    }

    async fn seen_by_client(&self, rule: Rule, answer: Option<Answer>) -> Option<Answer> {
        let mut answer = match rule.then {
            Then::Pass => answer?,
            Then::CutBody => Answer { cut: true, ..answer? },
            Then::Answer { status, headers, body } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let told = Answer { body: body.into(), ..Answer::new(status) };
                headers.iter().fold(told, |told, (name, value)| told.with_header(name, value))
            }
            Then::Cut => return None,
            Then::Hang => std::future::pending().await,
        };
        for name in &rule.strip_answer {
            answer.headers.remove(name);
        }
        Some(answer)
    }

    async fn apply(&self, kind: Kind, request: &Request) -> Option<Answer> {
        let answer = match kind {
            Kind::Credentials => self.credentials.answer(request),
            _ => self.backend.answer(request).await?,
        };
        self.script.answered(kind, request, answer.status.is_success(), answer.body.len() as u64);
        Some(answer)
    }
}

fn response(answer: Answer, method: &Method) -> Response<Either<Full<Bytes>, Half>> {
    let mut headers = answer.headers;
    let length = answer.body.len();
    // An answer to HEAD that came through a proxy has a length and no body.
    if method != Method::HEAD || length > 0 {
        headers.remove(CONTENT_LENGTH);
    }
    if method == Method::HEAD && length > 0 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = match (answer.cut, method) {
        (true, _) => Either::Right(Half { body: Some(answer.body) }),
        (false, &Method::HEAD) => Either::Left(Full::default()),
        (false, _) => Either::Left(Full::new(answer.body)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers;
    response
}

/// Half of a body with the content length of the whole, then the end of the connection.
struct Half {
    body: Option<Bytes>,
}

impl Body for Half {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.body.take() {
            Some(body) => Poll::Ready(Some(Ok(Frame::data(body.slice(..body.len() / 2))))),
            None => Poll::Ready(Some(Err(Cut))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}
