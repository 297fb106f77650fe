//! Requests and responses with their whole bodies.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;

/// The largest body of a request or an answer.
pub(crate) const LARGEST_BODY: usize = 64 * 1024 * 1024;

/// A request, its body read.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    /// Path and query, as sent.
    pub uri: Uri,
    /// Names in lower case.
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The path, percent-decoded. A plus sign stays one.
    pub fn path(&self) -> String {
        percent_decode_str(self.uri.path()).decode_utf8_lossy().into_owned()
    }

    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.uri.query()?;
        form_urlencoded::parse(query.as_bytes())
            .find(|(known, _value)| known == name)
            .map(|(_name, value)| value.into())
    }

    /// Bucket and key, for addresses of the form `/bucket/key`.
    pub(crate) fn bucket_and_key(&self) -> (String, String) {
        let path = self.path();
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        (bucket.to_owned(), key.to_owned())
    }
}

/// A response. It may be cut in the middle of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// All headers except the content length.
    pub headers: HeaderMap,
    /// The body. For HEAD it is that of a GET, of which only the length is sent.
    pub body: Bytes,
    /// Whether the connection ends in the middle of the body.
    pub cut: bool,
}

impl Answer {
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), cut: false }
    }

    pub(crate) fn with_body(mut self, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = body.into();
        self
    }

    /// Adds a header. A header that HTTP does not allow is left out.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            self.headers.append(name, value);
        }
        self
    }

    /// An error as S3 and Google write it.
    pub(crate) fn error(status: StatusCode, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message/></Error>");
        Self::new(status).with_body("application/xml", body)
    }
}
