//! The servers behind a script.

use std::collections::BTreeSet;

use crate::Flaw;
use crate::google::Google;
use crate::http::{Answer, Request};
use crate::s3::S3;
use crate::upstream::{InvalidUpstream, Upstream};

#[derive(Debug)]
pub struct Backend(Inner);

#[derive(Debug)]
enum Inner {
    S3(S3),
    Google(Google),
    Upstream(Upstream),
}

impl Backend {
    /// S3 in memory, with these flaws.
    pub fn s3(flaws: impl IntoIterator<Item = Flaw>) -> Self {
        Self(Inner::S3(S3::new(flaws.into_iter().collect::<BTreeSet<_>>())))
    }

    /// Google Cloud Storage in memory.
    pub fn google() -> Self {
        Self(Inner::Google(Google::default()))
    }

    /// The server at an address of the form `http://HOST:PORT`, with a path or without.
    pub fn proxy(address: &str) -> Result<Self, InvalidUpstream> {
        Upstream::new(address).map(|upstream| Self(Inner::Upstream(upstream)))
    }

    /// The path that clients put before each key.
    pub(crate) fn path(&self) -> &str {
        match &self.0 {
            Inner::Upstream(upstream) => &upstream.path,
            Inner::S3(_) | Inner::Google(_) => "",
        }
    }

    /// The answer; `None` where the connection ends without one.
    pub(crate) async fn answer(&self, request: &Request) -> Option<Answer> {
        match &self.0 {
            Inner::S3(s3) => Some(s3.answer(request).await),
            Inner::Google(google) => Some(google.answer(request)),
            Inner::Upstream(upstream) => upstream.answer(request).await,
        }
    }
}
