//! The objects of one bucket in memory, and their listing, whose format S3 and Google share.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::Bound;

use bytes::Bytes;

use crate::http::{Answer, Request};
use hyper::StatusCode;

pub const BUCKET: &str = "handoff";

pub(crate) const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const MODIFIED_ISO: &str = "2026-01-01T00:00:00.000Z";
/// The most that S3 and Google put on a page.
const MAX_KEYS: usize = 1_000;

/// One version of an object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) generation: u64,
    /// A hash of the content, as on S3 and Google: the same body has the same etag. Without quotes.
    pub(crate) etag: String,
    pub(crate) body: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct Bucket {
    last: u64,
    pub(crate) objects: BTreeMap<String, Object>,
}

impl Bucket {
    /// Writes an object. Returns its new version.
    pub(crate) fn insert(&mut self, key: String, body: Bytes) -> Object {
        self.last += 1;
        let object = Object { generation: 1_700_000_000_000_000 + self.last, etag: etag(&body), body };
        self.objects.insert(key, object.clone());
        object
    }

    /// The page of the listing that `request` asks for, of the keys with `prefix`. `show` formats an etag as this
    /// server does.
    pub(crate) fn list(&self, request: &Request, prefix: &str, show: impl Fn(&str) -> String) -> Answer {
        let after = request.query("continuation-token").or_else(|| request.query("start-after"));
        let asked = request.query("max-keys").and_then(|keys| keys.parse().ok());
        let max = asked.unwrap_or(MAX_KEYS).min(MAX_KEYS);
        let from = after.map_or(Bound::Included(prefix.to_owned()), Bound::Excluded);
        let mut found = self
            .objects
            .range((from, Bound::Unbounded))
            .skip_while(|(key, _object)| key.as_str() < prefix)
            .take_while(|(key, _object)| key.starts_with(prefix));
        let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
        let mut last = "";
        for (key, object) in found.by_ref().take(max) {
            body += &format!(
                "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{MODIFIED_ISO}</LastModified>\
                 <ETag>{}</ETag><Size>{}</Size></Contents>",
                escaped(key),
                object.generation,
                escaped(&show(&object.etag)),
                object.body.len(),
            );
            last = key;
        }
        if found.next().is_some() {
            let token = escaped(last);
            body += &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>");
        }
        body += "</ListBucketResult>";
        Answer::new(StatusCode::OK).with_body("application/xml", body)
    }
}

/// 32 hexadecimal digits, as S3's.
fn etag(body: &[u8]) -> String {
    let hash = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, body).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", hash(0), hash(1))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
