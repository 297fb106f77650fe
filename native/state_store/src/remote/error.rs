//! Turns an unsuccessful response into an [`Error`]. It uses what was seen on the wire, never the client's own
//! message, which contains URLs.

use std::time::{Duration, SystemTime};

use super::Remote;
use super::wire::Seen;
use crate::Error;
use crate::answers::{self, Meaning, Request};

/// A larger difference between clocks is part of every refusal's reason. S3 refuses from fifteen minutes on.
const SKEW: Duration = Duration::from_secs(5 * 60);

impl Remote {
    pub(super) fn error(&self, request: Request, error: &object_store::Error, seen: Seen) -> Error {
        if let Some(failure) = seen.credentials {
            return failure.into();
        }
        if let Some(lost) = seen.lost {
            return Error::Network { reason: lost.reason, sent: lost.sent };
        }
        let Some(status) = seen.status else { return local(error) };
        if seen.not_a_store {
            return Error::NotAStore { status };
        }
        if (200..300).contains(&status) {
            return Error::Network { reason: "the answer ended early or cannot be read".to_owned(), sent: true };
        }
        let row = answers::find(self.protocol, request, status, &seen.code);
        let denied = |reason, expired| Error::Denied { status, code: seen.code.clone(), reason, expired };
        match row.meaning {
            Meaning::Missing => Error::NotFound,
            Meaning::Conflict => Error::Conflict,
            Meaning::NoBucket => Error::NoBucket { bucket: self.bucket.clone() },
            Meaning::Denied => denied(refusal(&seen), false),
            Meaning::Expired => denied(refusal(&seen), true),
            Meaning::Clock => denied(clock(&seen).unwrap_or_else(|| CLOCK.to_owned()), false),
            Meaning::Elsewhere => denied(elsewhere(&seen), false),
            Meaning::Unsupported => Error::Unsupported { status, code: seen.code },
            Meaning::NotAStore => Error::NotAStore { status },
            Meaning::Again if status == 409 => Error::Contended,
            Meaning::AgainForKey => Error::Paced { retry_after: seen.retry_after },
            Meaning::SlowDown => Error::SlowDown { status, retry_after: seen.retry_after },
            // A 503 without a code that says for how long comes from a limit, not from a failure.
            Meaning::Outage if status == 503 && seen.code.is_empty() && seen.retry_after.is_some() => {
                Error::SlowDown { status, retry_after: seen.retry_after }
            }
            Meaning::Refused | Meaning::Again | Meaning::Outage => {
                Error::Server { status, passes: row.meaning.passes(), unsure: row.unsure, code: seen.code }
            }
        }
    }
}

const CLOCK: &str = "this machine's clock and the store's differ too much";

fn refusal(seen: &Seen) -> String {
    clock(seen).unwrap_or_else(|| "the store does not accept the credentials for this request".to_owned())
}

/// The difference between this machine's clock and the store's, if it is larger than network delays explain.
fn clock(seen: &Seen) -> Option<String> {
    let theirs = httpdate::parse_http_date(&seen.date).ok()?;
    let now = SystemTime::now();
    let (difference, direction) = match now.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (difference > SKEW).then(|| format!("this machine's clock is {} s {direction} the store's", difference.as_secs()))
}

fn elsewhere(seen: &Seen) -> String {
    if seen.region.is_empty() {
        "the region or the endpoint is not the bucket's".to_owned()
    } else {
        format!("the bucket is in the region {}", seen.region)
    }
}

/// Nothing was sent: there are no credentials, or they cannot sign a request.
fn local(error: &object_store::Error) -> Error {
    let code = match error {
        object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => "NoCredentials",
        // Switched off by an option.
        object_store::Error::NotImplemented { .. } => {
            return Error::Unsupported { status: 0, code: "NotImplemented".to_owned() };
        }
        object_store::Error::InvalidPath { .. } => {
            return Error::InvalidKey { reason: "a key in the listing is not a path" };
        }
        _ => "UnusableCredentials",
    };
    let reason = "the credentials that were given cannot be used".to_owned();
    Error::Denied { status: 0, code: code.to_owned(), reason, expired: false }
}
