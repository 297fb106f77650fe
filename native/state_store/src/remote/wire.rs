//! What goes over the wire and comes back: headers that `object_store` does not know, and the status codes it keeps to itself.
//!
//! The client's own requests run inside the task of the request they belong to, so what to add and what was seen travel in a
//! task-local value.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Uri};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

tokio::task_local! {
    static EXCHANGE: Arc<Exchange>;
}

const TIGRIS_CONSISTENT: HeaderName = HeaderName::from_static("x-tigris-consistent");
/// Where clouds answer questions about the machine: credentials, when none were given.
const METADATA_SERVICE: &str = "169.254.169.254";
const CODE_LENGTH: usize = 64;

/// One request: what to add to it, and what was seen of its answer.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Ask the leader, not a copy.
    pub(super) consistent: bool,
    /// The condition of a deletion.
    pub(super) delete_if: Option<(HeaderName, HeaderValue)>,
    seen: Mutex<Seen>,
}

/// The last thing that was seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) status: Option<u16>,
    pub(super) code: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) lost: Option<Lost>,
    /// Where a request was answered with success.
    pub(super) uri: Option<Uri>,
}

/// A request without an answer.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) reason: String,
    pub(super) sent: bool,
}

impl Exchange {
    /// Runs `request` with this exchange, and tells what was seen last.
    pub(super) async fn run<T>(self, request: impl Future<Output = T>) -> (T, Seen) {
        let exchange = Arc::new(self);
        let result = EXCHANGE.scope(Arc::clone(&exchange), request).await;
        let seen = exchange.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (result, seen)
    }

    fn add_headers(&self, request: &mut HttpRequest) {
        if self.consistent {
            request.headers_mut().insert(TIGRIS_CONSISTENT, HeaderValue::from_static("true"));
        }
        // Only the deletion itself: requests for credentials are part of the exchange too.
        if request.method() == Method::DELETE
            && let Some((name, value)) = &self.delete_if
        {
            request.headers_mut().insert(name, value.clone());
        }
    }

    fn saw(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// The connector of every store: the usual client, watched.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Fails when there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Wire { client }))
    }
}

#[derive(Debug)]
struct Wire {
    client: HttpClient,
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Ok(exchange) = EXCHANGE.try_with(Arc::clone) else {
            return self.client.execute(request).await;
        };
        exchange.add_headers(&mut request);
        let uri = request.uri().clone();
        let about_credentials = uri.host() == Some(METADATA_SERVICE);
        match self.client.execute(request).await {
            Ok(response) if response.status().is_success() => {
                let status = Some(response.status().as_u16());
                exchange.saw(Seen { status, uri: Some(uri), ..Seen::default() });
                Ok(response)
            }
            Ok(response) => refused(&exchange, response).await,
            Err(error) => {
                exchange.saw(Seen { lost: Some(lost(&error, about_credentials)), ..Seen::default() });
                Err(error)
            }
        }
    }
}

/// Reads the whole answer, which is short, to know the provider's own word for it.
async fn refused(exchange: &Exchange, response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let body = body.bytes().await.unwrap_or_default();
    exchange.saw(Seen {
        status: Some(parts.status.as_u16()),
        code: code(&parts.headers, &body),
        retry_after: retry_after(&parts.headers),
        ..Seen::default()
    });
    Ok(HttpResponse::from_parts(parts, body.into()))
}

fn lost(error: &HttpError, about_credentials: bool) -> Lost {
    if about_credentials {
        let reason = "no credentials were given, and this machine's metadata service has none".to_owned();
        return Lost { reason, sent: false };
    }
    // The innermost cause is the operating system's or the TLS library's; the outer ones only say that a request failed.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Lost { reason: cause.to_string(), sent: error.kind() != HttpErrorKind::Connect }
}

/// Azure's header, or the `Code` of the XML that all of them answer with.
fn code(headers: &HeaderMap, body: &[u8]) -> String {
    let named = headers.get("x-ms-error-code").and_then(|value| value.to_str().ok());
    let written = || {
        let body = std::str::from_utf8(body).ok()?;
        let (_before, after) = body.split_once("<Code>")?;
        Some(after.split_once("</Code>")?.0)
    };
    let code = named.or_else(written).unwrap_or_default();
    // A code is one word. Anything else could be an echo of what was sent.
    if code.len() <= CODE_LENGTH && code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        code.to_owned()
    } else {
        String::new()
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
