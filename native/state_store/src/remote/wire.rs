//! Access to the HTTP layer below `object_store`: adds headers that it does not know, and records status codes that
//! it does not return.
//!
//! The client's HTTP requests run in the task of the store request that they belong to, so both are in a
//! task-local value. Requests for credentials have another one: see `credentials`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, ETAG, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt, Limited};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use object_store::{ClientConfigKey, ClientOptions};
use quick_xml::escape::unescape;
use tower_http::follow_redirect::RequestUri;

use crate::answers::Request;
use crate::key;

tokio::task_local! {
    static EXCHANGE: Arc<Exchange>;
}

const TIGRIS_CONSISTENT: HeaderName = HeaderName::from_static("x-tigris-consistent");
const BUCKET_REGION: &str = "x-amz-bucket-region";
const CODE_LENGTH: usize = 64;
const REGION_LENGTH: usize = 24;
/// Error documents are short. A longer one is not read.
const MAX_ERROR_BYTES: usize = 256 * 1024;
/// A page has 1,000 keys at most, each of 1,024 bytes before they are escaped.
const MAX_LISTING_BYTES: usize = 16 * 1024 * 1024;

/// The kind of server that a request is sent to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    #[default]
    Store,
    Credentials,
}

/// The exchange of one request: what is added to it, and what is recorded of its response.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) role: Role,
    pub(super) request: Request,
    /// Ask the leader, not a replica.
    pub(super) consistent: bool,
    /// The condition of a deletion.
    pub(super) delete_if: Option<(HeaderName, HeaderValue)>,
    pub(super) seen: Mutex<Seen>,
}

/// Why there are no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) reason: String,
    /// Whether a retry of the exchange may succeed.
    pub(super) passes: bool,
}

/// What was recorded last.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) status: Option<u16>,
    pub(super) code: String,
    pub(super) retry_after: Option<Duration>,
    /// The region of the bucket, if the response names it.
    pub(super) region: String,
    /// The store's clock.
    pub(super) date: String,
    pub(super) lost: Option<Lost>,
    /// A successful status with a body that no store sends.
    pub(super) not_a_store: bool,
    /// There were no credentials to send.
    pub(super) credentials: Option<Failure>,
    /// Where the request went.
    pub(super) uri: Option<Uri>,
}

/// A request without an answer.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) reason: String,
    pub(super) sent: bool,
}

impl Exchange {
    /// Runs `request` with this exchange, and returns what was seen last.
    pub(super) async fn run<T>(self, request: impl Future<Output = T>) -> (T, Seen) {
        let exchange = Arc::new(self);
        let result = EXCHANGE.scope(Arc::clone(&exchange), request).await;
        let seen = exchange.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (result, seen)
    }

    /// Records for the request in this task that it has no credentials.
    pub(super) fn without_credentials(failure: Failure) {
        // Outside a request the cause is not recorded.
        let _ = EXCHANGE.try_with(|exchange| exchange.saw(Seen { credentials: Some(failure), ..Seen::default() }));
    }

    fn add_headers(&self, request: &mut HttpRequest) {
        if self.consistent {
            request.headers_mut().insert(TIGRIS_CONSISTENT, HeaderValue::from_static("true"));
        }
        if request.method() == Method::DELETE
            && let Some((name, value)) = &self.delete_if
        {
            request.headers_mut().insert(name, value.clone());
        }
    }

    fn saw(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Whether a successful response can be from a store. `object_store` accepts any.
    fn is_credible(&self, response: &HttpResponse) -> bool {
        let headers = response.headers();
        match self.request {
            Request::Get | Request::Head | Request::Put | Request::Create | Request::Update => {
                headers.contains_key(ETAG)
            }
            Request::Delete | Request::DeleteIf => {
                let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
                length.is_none_or(|length| length == "0")
            }
            // The body of a listing is checked.
            Request::List => true,
        }
    }
}

/// The connector of every store: the usual client, observed. All clients are created here, so that all have
/// the same options.
#[derive(Debug, Default, Clone)]
pub(super) struct Connector {
    made: Arc<Mutex<Vec<HttpClient>>>,
}

impl Connector {
    /// How many clients were created. A store whose credentials do not come from a service has one.
    pub(super) fn count(&self) -> usize {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The client that was created last, which is the store's own.
    pub(super) fn last(&self) -> Option<HttpClient> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // This fails when a provider is already installed, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = HttpClient::new(Wire { client: ReqwestConnector::default().connect(&patient(options))? });
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
        Ok(client)
    }
}

/// The client would end every request after 30 s. Each attempt has a timeout of its own, which may be longer, and so has
/// each exchange for credentials. A timeout that was set by an option or by the environment stays.
fn patient(options: &ClientOptions) -> ClientOptions {
    let timeout = |options: &ClientOptions| options.get_config_value(&ClientConfigKey::Timeout);
    let is_set = timeout(options) != timeout(&ClientOptions::default());
    if is_set { options.clone() } else { options.clone().with_timeout_disabled() }
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
        if exchange.role == Role::Store {
            exchange.add_headers(&mut request);
        }
        let uri = request.uri().clone();
        match self.client.execute(request).await {
            Ok(response) if !response.status().is_success() => refused(&exchange, uri, response).await,
            Ok(response) if exchange.role == Role::Credentials => {
                exchange.saw(Seen { status: Some(response.status().as_u16()), uri: Some(uri), ..Seen::default() });
                Ok(response)
            }
            Ok(response) => succeeded(&exchange, uri, response).await,
            Err(error) => {
                exchange.saw(Seen { lost: Some(lost(&error)), uri: Some(uri), ..Seen::default() });
                Err(error)
            }
        }
    }
}

async fn succeeded(exchange: &Exchange, uri: Uri, response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let credible = !was_redirected(&uri, &response) && exchange.is_credible(&response);
    let seen = Seen { status: Some(response.status().as_u16()), uri: Some(uri), ..Seen::default() };
    if !credible {
        exchange.saw(Seen { not_a_store: true, ..seen });
        return Err(not_a_store());
    }
    exchange.saw(seen.clone());
    if exchange.request != Request::List {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = read(body, MAX_LISTING_BYTES).await?;
    if is_listing(&body) {
        Ok(HttpResponse::from_parts(parts, without_other_keys(body).into()))
    } else {
        exchange.saw(Seen { not_a_store: true, ..seen });
        Err(not_a_store())
    }
}

/// The HTTP client follows redirects, and `object_store` does not let us switch that off. A redirected write becomes
/// a read (303), whose success is not that of the write.
fn was_redirected(uri: &Uri, response: &HttpResponse) -> bool {
    // The client sends the address as `Url` normalises it, for example without a default port.
    let sent = || url::Url::parse(&uri.to_string()).ok()?.as_str().parse::<Uri>().ok();
    let last = response.extensions().get::<RequestUri>().map(|RequestUri(last)| last);
    last.is_some_and(|last| last != uri && sent().as_ref() != Some(last))
}

async fn read(body: HttpResponseBody, most: usize) -> Result<Bytes, HttpError> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(error))),
    }
}

/// `object_store` reads any markup, such as an HTML page, as an empty listing.
fn is_listing(body: &[u8]) -> bool {
    const ROOTS: [&[u8]; 2] = [b"<ListBucketResult", b"<EnumerationResults"];
    let start = &body[..body.len().min(1_024)];
    ROOTS.iter().any(|root| start.windows(root.len()).any(|window| window == *root))
}

/// A listing without the objects of others whose keys no store of ours can have. `object_store` refuses the whole
/// page for a key such as `a//b`, and reads the `a/` that consoles create as `a`.
fn without_other_keys(body: Bytes) -> Bytes {
    let Ok(page) = std::str::from_utf8(&body) else { return body };
    let azure = page.contains("<EnumerationResults");
    let (start, end) = if azure { ("<Blob>", "</Blob>") } else { ("<Contents>", "</Contents>") };
    let (key_start, key_end) = if azure { ("<Name>", "</Name>") } else { ("<Key>", "</Key>") };
    let mut kept = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(start)
        && let Some((entry, after)) = after.split_once(end)
    {
        kept.push_str(before);
        let key = element(entry.as_bytes(), key_start, key_end);
        // One that cannot be read stays: the page is invalid then.
        if key.is_none_or(|key| unescape(key).map_or(true, |key| key::check(&key).is_ok())) {
            kept.extend([start, entry, end]);
        }
        rest = after;
    }
    kept.push_str(rest);
    kept.into()
}

fn not_a_store() -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, std::io::Error::other("the answer does not come from an object store"))
}

/// Reads the whole response, which is short, for the provider's error code.
async fn refused(exchange: &Exchange, uri: Uri, response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let body = read(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    exchange.saw(Seen {
        status: Some(parts.status.as_u16()),
        code: code(exchange.role, &parts.headers, &body),
        retry_after: retry_after(&parts.headers),
        region: region(&parts.headers, &body),
        date: text(DATE).unwrap_or_default().to_owned(),
        uri: Some(uri),
        ..Seen::default()
    });
    Ok(HttpResponse::from_parts(parts, body.into()))
}

fn lost(error: &HttpError) -> Lost {
    // The innermost cause is the operating system's or the TLS library's; the outer ones only say that a request failed.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Lost { reason: cause.to_string(), sent: error.kind() != HttpErrorKind::Connect }
}

/// Azure's header, or the `Code` of the XML that all of them answer with. Only services for credentials answer in JSON:
/// elsewhere that is a proxy's page.
fn code(role: Role, headers: &HeaderMap, body: &[u8]) -> String {
    let named = headers.get("x-ms-error-code").and_then(|value| value.to_str().ok());
    let json = || if role == Role::Credentials { element(body, "\"error\":\"", "\"") } else { None };
    let code = named.or_else(|| element(body, "<Code>", "</Code>")).or_else(json);
    word(code, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn region(headers: &HeaderMap, body: &[u8]) -> String {
    let named = headers.get(BUCKET_REGION).and_then(|value| value.to_str().ok());
    let region =
        named.or_else(|| element(body, "<Region>", "</Region>")).filter(|region| region.len() <= REGION_LENGTH);
    word(region, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn element<'a>(body: &'a [u8], start: &str, end: &str) -> Option<&'a str> {
    let body = std::str::from_utf8(body).ok()?;
    let (_before, after) = body.split_once(start)?;
    Some(after.split_once(end)?.0)
}

/// An error code is a single word. Other texts could contain parts of the request, such as secrets.
fn word(text: Option<&str>, has: impl Fn(u8) -> bool) -> String {
    text.filter(|text| text.len() <= CODE_LENGTH && text.bytes().all(has)).unwrap_or_default().to_owned()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(asked: &'static str, answered: &'static str) -> bool {
        let mut response = HttpResponse::new(Bytes::new().into());
        response.extensions_mut().insert(RequestUri(Uri::from_static(answered)));
        was_redirected(&Uri::from_static(asked), &response)
    }

    #[test]
    fn an_address_in_another_notation_is_not_a_redirect() {
        for (asked, answered) in [
            ("https://s3.internal:443/b/k", "https://s3.internal/b/k"),
            ("http://S3.Internal:80/b?list-type=2", "http://s3.internal/b?list-type=2"),
            ("http://127.1/b/k%7E'", "http://127.0.0.1/b/k%7E'"),
        ] {
            assert!(!redirected(asked, answered), "{asked}");
        }
        assert!(redirected("https://s3.internal/b/k", "https://s3.internal/login"));
        assert!(redirected("https://s3.internal/b/k", "http://s3.internal/b/k"));
    }

    #[test]
    fn the_client_ends_no_request_unless_a_timeout_was_set() {
        let timeout = |options: ClientOptions| patient(&options).get_config_value(&ClientConfigKey::Timeout);
        assert_eq!(timeout(ClientOptions::default()), None);
        let set = ClientOptions::default().with_config(ClientConfigKey::Timeout, "2 minutes");
        assert_eq!(timeout(set), Some("2 minutes".to_owned()));
    }

    #[test]
    fn a_listing_keeps_every_object_that_a_store_of_ours_can_have() {
        for (root, entry, name) in [("ListBucketResult", "Contents", "Key"), ("EnumerationResults", "Blob", "Name")] {
            let page = |keys: &[&str]| {
                let entries =
                    keys.iter().map(|key| format!("<{entry}><{name}>{key}</{name}><Size>1</Size></{entry}>\n"));
                format!("<{root}><Name>b</Name>{}<Next>a//b</Next></{root}>", entries.collect::<String>())
            };
            let kept = ["a &amp;amp; b", "a&#x20;b", "日本語/ü", "a&b"];
            let dropped = ["a//b", "/a", "a/", "./a", "a/..", "a&#x1;b", "a&#47;&#47;b"];
            let all = page(&[&kept[..1], &dropped[..], &kept[1..]].concat());
            let left = without_other_keys(all.into());
            let objects = String::from_utf8(left.to_vec()).unwrap();
            let empty_lines = |text: &str| text.replace('\n', "");
            assert_eq!(empty_lines(&objects), empty_lines(&page(&kept)));
        }
    }

    #[tokio::test]
    async fn a_body_above_its_limit_is_not_read_to_its_end() {
        let body = || HttpResponseBody::from(Bytes::from_static(b"1234"));
        assert!(read(body(), 3).await.is_err());
        assert_eq!(read(body(), 4).await.unwrap(), "1234");
    }
}
