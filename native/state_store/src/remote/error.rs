//! An answer that is no success, in our words. Made of what was seen on the wire, never of the client's own text, which holds
//! URLs.

use super::Remote;
use super::wire::Seen;
use crate::Error;

impl Remote {
    pub(super) fn error(&self, error: &object_store::Error, seen: Seen) -> Error {
        if let Some(lost) = seen.lost {
            return Error::Network { reason: lost.reason, sent: lost.sent };
        }
        let Some(status) = seen.status else { return local(error) };
        let code = seen.code;
        match (status, code.as_str()) {
            (200..300, _) => {
                Error::Network { reason: "the answer ended early or cannot be read".to_owned(), sent: true }
            }
            (_, "SlowDown" | "ServerBusy" | "TooManyRequests") | (429 | 503, _) => {
                Error::SlowDown { status, retry_after: seen.retry_after }
            }
            (404, "NoSuchBucket" | "ContainerNotFound" | "BucketNotFound") => {
                Error::NoBucket { bucket: self.bucket.clone() }
            }
            (404, _) => Error::NotFound,
            (409, "ConditionalRequestConflict" | "OperationAborted") => Error::Contended,
            (304 | 409 | 412, _) => Error::Conflict,
            (401 | 403, _)
            | (400, "InvalidAccessKeyId" | "ExpiredToken" | "InvalidToken" | "AuthorizationHeaderMalformed") => {
                Error::Denied { status, code }
            }
            _ => Error::Server { status, code },
        }
    }
}

/// Nothing was sent: credentials that cannot be had, or a key that makes no signature.
fn local(error: &object_store::Error) -> Error {
    let code = match error {
        object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => "NoCredentials",
        object_store::Error::InvalidPath { .. } => {
            return Error::InvalidKey { reason: "a key in the listing is not a path" };
        }
        _ => "UnusableCredentials",
    };
    Error::Denied { status: 0, code: code.to_owned() }
}
