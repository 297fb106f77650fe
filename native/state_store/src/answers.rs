//! What an unsuccessful response means: one table of data, which tests can iterate.
//!
//! A row is found by protocol, kind of request, status and the provider's error code; the first row that matches
//! counts. Each row names its source, a publication of the provider. Responses of services for credentials are
//! in `remote::credentials`.

mod table;

pub use table::TABLE;

/// The protocol of a store. S3 includes all compatible stores: AWS, R2, Tigris, MinIO, Ceph, Spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// S3 and what is compatible with it.
    S3,
    /// Google Cloud Storage's XML API.
    Google,
    Azure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Request {
    #[default]
    Get,
    /// Read an object's etag. Responses have no body, and on S3 no error code.
    Head,
    /// Write an object without a condition.
    Put,
    /// Create an object: write it if there is none.
    Create,
    /// Replace one version of an object.
    Update,
    Delete,
    /// Delete one version of an object.
    DeleteIf,
    List,
}

/// What to do after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Final: there is no such object.
    Missing,
    /// Final: the condition does not hold.
    Conflict,
    /// Final: there is no such bucket.
    NoBucket,
    /// Final: the credentials do not allow it.
    Denied,
    /// The credentials are unknown or have expired: fetch new ones once, then as [`Meaning::Denied`].
    Expired,
    /// Final: this machine's clock is wrong.
    Clock,
    /// Final: the bucket is in another region, or behind another address.
    Elsewhere,
    /// Final: the store cannot do this.
    Unsupported,
    /// Final, for any other reason.
    Refused,
    /// Another request for the object is in progress: retry after a short pause.
    Again,
    /// This object was written or read too often: retry after a pause for this key. The store is fine.
    AgainForKey,
    /// The store asks for fewer requests: retry after a longer pause, and send fewer from now on.
    SlowDown,
    /// The store, or a proxy in front of it, fails: retry after a pause.
    Outage,
    /// The response is not from a store but, for example, a proxy's own page: retry after a pause.
    NotAStore,
}

/// The error codes that a row matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Any, or none.
    Any,
    /// Exactly this one.
    Is(&'static str),
    /// None: the answer has no code.
    Absent,
}

/// A row of [`TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub protocols: &'static [Protocol],
    pub requests: &'static [Request],
    /// The first and the last status it matches.
    pub statuses: (u16, u16),
    pub code: Code,
    pub meaning: Meaning,
    /// Whether a write with this response may have been applied.
    pub unsure: bool,
    /// Where this is published.
    pub source: &'static str,
}

impl Row {
    fn fits(&self, protocol: Protocol, request: Request, status: u16, code: &str) -> bool {
        let fits_code = match self.code {
            Code::Any => true,
            Code::Is(this) => this == code,
            Code::Absent => code.is_empty(),
        };
        fits_code
            && (self.statuses.0..=self.statuses.1).contains(&status)
            && self.protocols.contains(&protocol)
            && self.requests.contains(&request)
    }
}

impl Meaning {
    /// Whether the same request may succeed later without intervention.
    pub fn passes(self) -> bool {
        matches!(self, Self::Again | Self::AgainForKey | Self::SlowDown | Self::Outage | Self::NotAStore)
    }
}

/// The row for a response. Every unsuccessful status has one.
pub fn find(protocol: Protocol, request: Request, status: u16, code: &str) -> &'static Row {
    TABLE.iter().find(|row| row.fits(protocol, request, status, code)).unwrap_or(&table::UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: [Request; 8] = [
        Request::Get,
        Request::Head,
        Request::Put,
        Request::Create,
        Request::Update,
        Request::Delete,
        Request::DeleteIf,
        Request::List,
    ];
    const PROTOCOLS: [Protocol; 3] = [Protocol::S3, Protocol::Google, Protocol::Azure];

    #[test]
    fn no_row_is_hidden_by_earlier_rows() {
        for (number, row) in TABLE.iter().enumerate() {
            let code = match row.code {
                Code::Is(code) => code,
                Code::Any => "AnyOther",
                Code::Absent => "",
            };
            let reached = PROTOCOLS.iter().any(|protocol| {
                REQUESTS.iter().any(|request| {
                    (row.statuses.0..=row.statuses.1)
                        .any(|status| std::ptr::eq(find(*protocol, *request, status, code), row))
                })
            });
            assert!(reached, "row {number} is never found: {row:?}");
        }
    }

    #[test]
    fn every_server_error_may_have_been_applied() {
        for protocol in PROTOCOLS {
            for request in [Request::Put, Request::Create, Request::Update, Request::Delete, Request::DeleteIf] {
                for status in (500..600).filter(|status| ![501, 505, 507, 511].contains(status)) {
                    for code in ["", "InternalError", "ServiceUnavailable", "SlowDown", "Whatever"] {
                        let row = find(protocol, request, status, code);
                        assert!(
                            row.unsure && row.meaning.passes(),
                            "{protocol:?} {request:?} {status} {code}: {row:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_response_of_a_proxy_never_counts_as_a_missing_object() {
        for protocol in PROTOCOLS {
            for request in REQUESTS {
                for code in ["not_found", "NotFound", "NoSuchAccessPoint", "NoSuchUpload"] {
                    let row = find(protocol, request, 404, code);
                    assert!(row.unsure && row.meaning.passes(), "{protocol:?} {request:?} {code}: {row:?}");
                }
                if request != Request::Head {
                    let row = find(protocol, request, 404, "");
                    assert_eq!(row.meaning, Meaning::NotAStore, "{protocol:?} {request:?}");
                }
            }
        }
    }

    #[test]
    fn a_conditional_write_to_a_missing_object_is_a_conflict_but_to_a_missing_bucket_is_not() {
        for (protocol, code) in [
            (Protocol::S3, "NoSuchKey"),
            (Protocol::S3, "NoSuchVersion"),
            (Protocol::Google, "NoSuchKey"),
            (Protocol::Azure, "BlobNotFound"),
            (Protocol::Azure, "ResourceNotFound"),
        ] {
            assert_eq!(find(protocol, Request::Update, 404, code).meaning, Meaning::Conflict);
            for request in [Request::Get, Request::Head, Request::Delete, Request::DeleteIf] {
                assert_eq!(find(protocol, request, 404, code).meaning, Meaning::Missing);
            }
        }
        assert_eq!(find(Protocol::S3, Request::Update, 404, "NoSuchBucket").meaning, Meaning::NoBucket);
        assert_eq!(find(Protocol::Azure, Request::Update, 404, "ContainerNotFound").meaning, Meaning::NoBucket);
    }

    #[test]
    fn every_row_has_its_source() {
        for row in TABLE {
            assert!(row.source.len() > 10 && row.statuses.0 <= row.statuses.1, "{row:?}");
            assert!(!row.protocols.is_empty() && !row.requests.is_empty(), "{row:?}");
        }
    }
}
