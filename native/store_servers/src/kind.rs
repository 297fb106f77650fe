//! What a request asks for, by its own method, headers and address, the same for S3, Google and Azure.

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::Request;
use crate::credentials;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Get,
    Head,
    /// Writes an object unconditionally.
    Put,
    /// Writes an object if there is none.
    Claim,
    /// Writes an object if it is still the version it names.
    Update,
    /// Deletes an object, under a condition or not.
    Delete,
    List,
    /// Asks a metadata service, STS or a token endpoint.
    Credentials,
    Other,
}

impl Kind {
    pub fn of(request: &Request) -> Self {
        if credentials::is_exchange(request) {
            return Self::Credentials;
        }
        match request.method {
            Method::GET if is_listing(request) => Self::List,
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::DELETE => Self::Delete,
            Method::PUT => match (request.header("x-goog-if-generation-match"), request.header("if-none-match")) {
                (Some("0"), _) | (None, Some(_)) => Self::Claim,
                (Some(_generation), _) => Self::Update,
                (None, None) if request.header("if-match").is_some() => Self::Update,
                (None, None) => Self::Put,
            },
            _ => Self::Other,
        }
    }

    pub fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Claim | Self::Update | Self::Delete)
    }
}

fn is_listing(request: &Request) -> bool {
    request.query("list-type").is_some() || request.query("comp").as_deref() == Some("list") || {
        let (_bucket, key) = request.bucket_and_key();
        key.is_empty()
    }
}
