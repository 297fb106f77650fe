//! A Google Cloud Storage for tests: the part of its XML API that conditional storage needs, in memory.
//!
//! There is one bucket, `handoff`, and one token, `test`. Written after Google's reference of the XML API: objects by generation,
//! `x-goog-if-generation-match` on writes and deletions (0: there is none), listings version 2 with pages in the order of UTF-8, errors as XML
//! with their codes.

mod server;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use server::{Request, serve, write};
use url::form_urlencoded;

const BUCKET: &str = "handoff";
const TOKEN: &str = "Bearer test";
const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const MODIFIED_ISO: &str = "2026-01-01T00:00:00.000Z";
/// Google's own.
const MAX_KEYS: usize = 1_000;

#[derive(Default)]
struct Bucket {
    last: u64,
    objects: BTreeMap<String, Object>,
}

struct Object {
    generation: String,
    etag: String,
    body: Vec<u8>,
}

/// A status and the code that goes with it.
type Refusal = (&'static str, &'static str);

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let bucket = Mutex::new(Bucket { last: 1_700_000_000_000_000, ..Bucket::default() });
    serve(move |request, out| {
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err((status, code)) = answer(request, &mut bucket, out) {
            let body = format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>");
            write(out, status, &[("content-type", "application/xml")], body.len(), body.as_bytes());
        }
    })
    .await
}

fn answer(request: Request, bucket: &mut Bucket, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if request.header("authorization") != Some(TOKEN) {
        return Err(("401 Unauthorized", "AuthenticationRequired"));
    }
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let (name, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    if name != BUCKET {
        return Err(("404 Not Found", "NoSuchBucket"));
    }
    let key = decoded(key);
    match request.method.as_str() {
        "GET" if key.is_empty() => list(bucket, query, out),
        "GET" | "HEAD" => {
            let object = bucket.objects.get(&key).ok_or(("404 Not Found", "NoSuchKey"))?;
            let body: &[u8] = if request.method == "GET" { &object.body } else { b"" };
            write(out, "200 OK", &object.headers(), object.body.len(), body);
        }
        "PUT" => {
            bucket.check(&key, request.header("x-goog-if-generation-match"))?;
            bucket.last += 1;
            let object = Object { generation: bucket.last.to_string(), etag: etag(&request.body), body: request.body };
            write(out, "200 OK", &object.headers(), 0, b"");
            bucket.objects.insert(key, object);
        }
        "DELETE" => {
            if !bucket.objects.contains_key(&key) {
                return Err(("404 Not Found", "NoSuchKey"));
            }
            bucket.check(&key, request.header("x-goog-if-generation-match"))?;
            bucket.objects.remove(&key);
            write(out, "204 No Content", &[], 0, b"");
        }
        _ => return Err(("405 Method Not Allowed", "MethodNotAllowed")),
    }
    Ok(())
}

impl Bucket {
    fn check(&self, key: &str, expected: Option<&str>) -> Result<(), Refusal> {
        let current = self.objects.get(key).map_or("0", |object| &object.generation);
        match expected {
            Some(expected) if expected != current => Err(("412 Precondition Failed", "PreconditionFailed")),
            _ => Ok(()),
        }
    }
}

impl Object {
    fn headers(&self) -> [(&'static str, &str); 3] {
        [("etag", &self.etag), ("last-modified", MODIFIED), ("x-goog-generation", &self.generation)]
    }
}

fn list(bucket: &Bucket, query: &str, out: &mut Vec<u8>) {
    let mut prefix = String::new();
    let (mut after, mut max) = (None, MAX_KEYS);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "prefix" => prefix = value.into_owned(),
            "continuation-token" | "start-after" => after = Some(value.into_owned()),
            "max-keys" => max = value.parse().unwrap_or(MAX_KEYS).min(MAX_KEYS),
            _ => {}
        }
    }
    let from = after.map_or(Bound::Included(prefix.clone()), Bound::Excluded);
    let mut found = bucket
        .objects
        .range((from, Bound::Unbounded))
        .skip_while(|(key, _)| **key < prefix)
        .take_while(|(key, _)| key.starts_with(&prefix));
    let mut body = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
    let mut last = "";
    for (key, object) in found.by_ref().take(max) {
        let (size, etag) = (object.body.len(), escaped(&object.etag));
        body += &format!(
            "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{MODIFIED_ISO}</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>",
            escaped(key),
            object.generation,
        );
        last = key;
    }
    if found.next().is_some() {
        body += &format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(last));
    }
    body += "</ListBucketResult>";
    write(out, "200 OK", &[("content-type", "application/xml")], body.len(), body.as_bytes());
}

/// Of the content, as Google's are.
fn etag(body: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// `%XX` and nothing else: in a path a plus sign is one.
fn decoded(text: &str) -> String {
    form_urlencoded::parse(text.replace('+', "%2B").replace('=', "%3D").replace('&', "%26").as_bytes())
        .map(|(name, _value)| name.into_owned())
        .collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
