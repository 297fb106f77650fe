//! The rows. Those with a code come before those for any code of the same status.

use super::Code::{Absent, Any, Is};
use super::Meaning::{
    Again, AgainForKey, Clock, Conflict, Denied, Elsewhere, Expired, Missing, NoBucket, NotAStore, Outage, Refused,
    SlowDown, Unsupported,
};
use super::Protocol::{Azure, Google, S3};
use super::Request::{Create, Delete, DeleteIf, Get, Head, List, Put, Update};
use super::{Code, Meaning, Protocol, Request, Row};

const AWS: &str = "AWS: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html";
const AWS_CONDITIONS: &str = "AWS: docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html";
const AWS_REDIRECTS: &str = "AWS: docs.aws.amazon.com/AmazonS3/latest/userguide/Redirects.html";
const BOTOCORE: &str = "AWS SDK for Python: botocore/retries/standard.py";
const AWS_SDK_GO: &str = "AWS SDK for Go: aws/request/retryer.go, codes of expired credentials";
const R2: &str = "Cloudflare R2: developers.cloudflare.com/r2/api/error-codes/";
const R2_LIMITS: &str =
    "Cloudflare R2: developers.cloudflare.com/r2/platform/limits/, 429 for concurrent requests for one object";
const CLOUDFLARE: &str = "Cloudflare: developers.cloudflare.com/support/troubleshooting/http-status-codes/";
const MINIO: &str = "MinIO: cmd/api-errors.go";
const MINIO_GO: &str = "MinIO client: minio-go retry.go";
const CEPH: &str = "Ceph: src/rgw/rgw_common.cc, rgw_http_s3_errors";
const GOOGLE: &str = "Google: cloud.google.com/storage/docs/xml-api/reference-status";
const GOOGLE_RETRY: &str = "Google: cloud.google.com/storage/docs/retry-strategy";
const GOOGLE_QUOTAS: &str = "Google: cloud.google.com/storage/quotas, one write a second for each object";
const AZURE: &str = "Azure: learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes";
const AZURE_BLOBS: &str = "Azure: learn.microsoft.com/rest/api/storageservices/blob-service-error-codes";
const AZURE_SDK: &str = "Azure SDK: azure_core, retry policy (408, 429, 500, 502, 503, 504)";
const NGINX: &str = "nginx: src/http/ngx_http_request.h, 499 is its own status for a client that closed the request";
const HTTP: &str = "RFC 9110, HTTP semantics";
const HTTP_CAPTIVE: &str = "RFC 6585, section 6";
const FORM: &str = "the error formats of S3, Google and Azure: an answer of the store itself has a code";

const ALL: &[Protocol] = &[S3, Google, Azure];
const EVERY: &[Request] = &[Get, Head, Put, Create, Update, Delete, DeleteIf, List];
const OBJECT: &[Request] = &[Get, Head, Put, Create, Update, Delete, DeleteIf];
const WRITES: &[Request] = &[Put, Create, Update, Delete, DeleteIf];
const CONDITIONAL: &[Request] = &[Create, Update];
const CONDITIONS: &[Request] = &[Create, Update, DeleteIf];
const WITH_BODY: &[Request] = &[Get, Put, Create, Update, Delete, DeleteIf, List];

/// For a status below 200 or above 599, which no row matches.
pub(super) const UNKNOWN: Row = row(ALL, EVERY, (0, u16::MAX), Any, Outage, HTTP).unsure();

const fn row(
    protocols: &'static [Protocol],
    requests: &'static [Request],
    statuses: (u16, u16),
    code: Code,
    meaning: Meaning,
    source: &'static str,
) -> Row {
    Row { protocols, requests, statuses, code, meaning, unsure: false, source }
}

impl Row {
    /// For responses after which it is unknown whether a write was applied.
    const fn unsure(self) -> Row {
        Row { unsure: true, ..self }
    }
}

/// The rows, in the order in which they count.
pub static TABLE: &[Row] = &[
    // Too many requests: for one object, or for the store.
    row(&[S3], OBJECT, (429, 429), Any, AgainForKey, R2_LIMITS),
    row(&[Google], WRITES, (429, 429), Any, AgainForKey, GOOGLE_QUOTAS),
    row(&[S3], &[List], (429, 429), Any, SlowDown, MINIO_GO),
    row(&[Google], &[Get, Head, List], (429, 429), Any, SlowDown, GOOGLE_RETRY),
    row(&[Azure], EVERY, (429, 429), Any, SlowDown, AZURE_SDK),
    row(ALL, EVERY, (400, 499), Is("SlowDown"), SlowDown, AWS),
    row(ALL, EVERY, (500, 599), Is("SlowDown"), SlowDown, AWS).unsure(),
    row(&[S3], EVERY, (503, 503), Is("SlowDownRead"), SlowDown, MINIO).unsure(),
    row(&[S3], EVERY, (503, 503), Is("SlowDownWrite"), SlowDown, MINIO).unsure(),
    row(&[S3], EVERY, (400, 499), Is("RequestLimitExceeded"), SlowDown, BOTOCORE),
    row(&[S3], EVERY, (400, 499), Is("Throttling"), SlowDown, BOTOCORE),
    row(&[S3], EVERY, (400, 499), Is("ThrottlingException"), SlowDown, BOTOCORE),
    row(&[S3], EVERY, (400, 499), Is("RequestThrottled"), SlowDown, BOTOCORE),
    row(&[S3], EVERY, (503, 503), Is("RequestLimitExceeded"), SlowDown, BOTOCORE).unsure(),
    row(&[S3], EVERY, (509, 509), Any, SlowDown, BOTOCORE).unsure(),
    row(&[Azure], EVERY, (503, 503), Is("ServerBusy"), SlowDown, AZURE).unsure(),
    // Requests that the store does not support.
    row(ALL, EVERY, (501, 501), Any, Unsupported, HTTP),
    row(&[S3], EVERY, (400, 499), Is("NotImplemented"), Unsupported, AWS),
    row(&[Azure], EVERY, (400, 400), Is("ConditionHeadersNotSupported"), Unsupported, AZURE),
    row(ALL, EVERY, (405, 405), Any, Unsupported, HTTP),
    row(ALL, EVERY, (505, 505), Any, Refused, HTTP),
    row(&[S3], EVERY, (507, 507), Any, Refused, MINIO),
    row(ALL, EVERY, (511, 511), Any, NotAStore, HTTP_CAPTIVE),
    // The clock, and credentials that are no longer or not yet good.
    row(&[S3, Google], EVERY, (403, 403), Is("RequestTimeTooSkewed"), Clock, AWS),
    row(&[S3], EVERY, (400, 403), Is("ExpiredToken"), Expired, AWS_SDK_GO),
    row(&[S3], EVERY, (400, 403), Is("ExpiredTokenException"), Expired, AWS_SDK_GO),
    row(&[S3], EVERY, (400, 403), Is("RequestExpired"), Expired, AWS_SDK_GO),
    row(&[S3], EVERY, (400, 403), Is("TokenRefreshRequired"), Expired, AWS),
    row(&[S3], EVERY, (400, 403), Is("InvalidToken"), Expired, AWS),
    row(&[S3, Google], EVERY, (400, 403), Is("InvalidAccessKeyId"), Expired, AWS),
    row(&[S3, Google], EVERY, (403, 403), Is("SignatureDoesNotMatch"), Expired, AWS),
    row(&[Azure], EVERY, (403, 403), Is("AuthenticationFailed"), Expired, AZURE),
    row(ALL, EVERY, (401, 401), Any, Expired, GOOGLE),
    // Another region, or another address.
    row(&[S3], EVERY, (400, 400), Is("AuthorizationHeaderMalformed"), Elsewhere, AWS),
    row(&[S3], EVERY, (400, 400), Is("IllegalLocationConstraintException"), Elsewhere, AWS),
    row(ALL, CONDITIONS, (304, 304), Any, Conflict, HTTP),
    row(ALL, EVERY, (300, 399), Any, Elsewhere, AWS_REDIRECTS),
    // The bucket.
    row(&[S3, Google], EVERY, (404, 404), Is("NoSuchBucket"), NoBucket, AWS),
    row(&[Azure], EVERY, (404, 404), Is("ContainerNotFound"), NoBucket, AZURE_BLOBS),
    row(&[Azure], EVERY, (409, 409), Is("ContainerBeingDeleted"), NoBucket, AZURE_BLOBS),
    row(&[Azure], EVERY, (409, 409), Is("ContainerDisabled"), Denied, AZURE_BLOBS),
    // An object that is not there: only with the store's own code for that.
    row(ALL, &[Head], (404, 404), Absent, Missing, AWS),
    row(ALL, WITH_BODY, (404, 404), Absent, NotAStore, FORM),
    row(&[S3, Google], CONDITIONAL, (404, 404), Is("NoSuchKey"), Conflict, AWS_CONDITIONS),
    row(&[S3], CONDITIONAL, (404, 404), Is("NoSuchVersion"), Conflict, MINIO),
    row(&[Azure], CONDITIONAL, (404, 404), Is("BlobNotFound"), Conflict, AZURE_BLOBS),
    row(&[Azure], CONDITIONAL, (404, 404), Is("ResourceNotFound"), Conflict, AZURE),
    row(&[S3, Google], EVERY, (404, 404), Is("NoSuchKey"), Missing, AWS),
    row(&[S3], EVERY, (404, 404), Is("NoSuchVersion"), Missing, MINIO),
    row(&[Azure], EVERY, (404, 404), Is("BlobNotFound"), Missing, AZURE_BLOBS),
    row(&[Azure], EVERY, (404, 404), Is("ResourceNotFound"), Missing, AZURE),
    row(ALL, EVERY, (404, 404), Any, Outage, FORM).unsure(),
    // Another request in progress, which is no conflict yet.
    row(&[S3], EVERY, (409, 409), Is("ConditionalRequestConflict"), Again, AWS_CONDITIONS),
    row(&[S3, Google], EVERY, (409, 409), Is("OperationAborted"), Again, AWS),
    row(&[S3], EVERY, (409, 409), Is("ConcurrentModification"), Again, CEPH),
    // Refused because of a state of the object, such as a lease, which is not the condition of the request.
    row(&[Azure], EVERY, (412, 412), Is("LeaseIdMissing"), Refused, AZURE_BLOBS),
    row(&[Azure], EVERY, (409, 409), Is("BlobImmutableDueToPolicy"), Refused, AZURE_BLOBS),
    row(&[Azure], EVERY, (409, 409), Is("BlobImmutableDueToLegalHold"), Refused, AZURE_BLOBS),
    row(&[Azure], EVERY, (409, 409), Is("SnapshotsPresent"), Refused, AZURE_BLOBS),
    row(&[Azure], EVERY, (409, 409), Is("InvalidBlobType"), Refused, AZURE_BLOBS),
    row(&[S3], EVERY, (409, 409), Is("InvalidBucketState"), Refused, AWS),
    // Conditions that do not hold.
    row(&[Azure], CONDITIONS, (409, 409), Is("BlobAlreadyExists"), Conflict, AZURE_BLOBS),
    row(ALL, CONDITIONS, (409, 409), Any, Conflict, AWS_CONDITIONS),
    row(ALL, CONDITIONS, (412, 412), Any, Conflict, HTTP),
    row(ALL, EVERY, (409, 409), Any, Again, AWS),
    // Requests that arrived in part, or whose connection was closed on the way.
    row(&[S3], EVERY, (400, 400), Is("RequestTimeout"), Again, BOTOCORE),
    row(&[S3], EVERY, (400, 400), Is("RequestTimeoutException"), Again, BOTOCORE),
    row(&[S3], EVERY, (400, 400), Is("PriorRequestNotComplete"), Again, BOTOCORE),
    row(&[S3, Google], EVERY, (400, 400), Is("IncompleteBody"), Again, AWS),
    row(&[S3, Google], EVERY, (400, 400), Is("BadDigest"), Again, AWS),
    row(&[S3], EVERY, (400, 400), Is("ClientDisconnect"), Again, R2).unsure(),
    row(&[S3], EVERY, (400, 499), Is("InternalError"), Outage, MINIO_GO).unsure(),
    row(ALL, EVERY, (408, 408), Any, Again, GOOGLE_RETRY).unsure(),
    row(ALL, EVERY, (425, 425), Any, Again, HTTP),
    row(ALL, EVERY, (499, 499), Any, Again, NGINX).unsure(),
    // Not allowed.
    row(ALL, EVERY, (403, 403), Any, Denied, AWS),
    row(ALL, EVERY, (407, 407), Any, Denied, HTTP),
    // All other client errors, and errors of servers and of proxies in front of them.
    row(ALL, EVERY, (400, 498), Any, Refused, HTTP),
    row(&[S3], EVERY, (503, 503), Is("XMinioServerNotInitialized"), Outage, MINIO).unsure(),
    row(&[S3], EVERY, (503, 503), Is("ServiceUnavailable"), Outage, CEPH).unsure(),
    row(&[S3], EVERY, (520, 530), Any, Outage, CLOUDFLARE).unsure(),
    row(&[Azure], EVERY, (500, 500), Is("OperationTimedOut"), Outage, AZURE).unsure(),
    row(ALL, EVERY, (500, 599), Any, Outage, BOTOCORE).unsure(),
];
