//! Types of requests and responses.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub body: Bytes,
    /// Identifies this version: an etag, a generation or a content hash. Opaque.
    pub etag: String,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRef {
    /// Its key, without the store's own prefix.
    pub key: String,
    /// See [`Object::etag`].
    pub etag: String,
}

/// Part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The objects, in the store's order.
    pub objects: Vec<ObjectRef>,
    /// Where the next page starts; `None` on the last page.
    pub next: Option<String>,
}

/// What must hold for a write to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Always,
    /// There is no object.
    Absent,
    /// The object still has this etag.
    Etag(String),
}

/// What a deletion deletes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// The version with this etag.
    Version(&'a str),
    /// The same, but without a look whether it is still there: only the condition keeps another version.
    Unseen(&'a str),
    /// The version that the first attempt finds, and whose etag it puts here. What is written later stays.
    Found(&'a Arc<OnceLock<String>>),
}

/// When a refused conditional write is verified by reading the object back. If the object has exactly the bytes
/// of the write, the write succeeded: the refusal was the response to a second copy of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readback {
    /// After every refusal: for bytes that name their owner, so no other writer sends the same.
    Always,
    /// Only after a lost response: for bytes that two writers may both send.
    AfterLostAnswer,
}

/// How long a request may take, and how often it may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The time for the whole request: waiting for its turn, sending, pauses, retries.
    pub timeout: Duration,
    /// How often a failed request is sent again.
    pub retries: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub condition: Condition,
    pub readback: Readback,
    /// Whether the next read is answered from memory: for objects that no other node may write meanwhile.
    pub keep: bool,
}
