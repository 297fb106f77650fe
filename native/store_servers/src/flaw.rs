//! Flaws of the S3 server, each seen on a real server or proxy.

use clap::ValueEnum;

/// A flaw. Several can be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Flaw {
    /// `If-Match` and `If-None-Match` are ignored (Garage, rclone's server, a proxy that strips headers).
    IgnoresConditions,
    /// `If-Match` is ignored.
    IgnoresIfMatch,
    /// `If-None-Match` is ignored.
    IgnoresIfNoneMatch,
    /// The condition is checked, and the object written a moment later (s3s-fs, Ceph 20 with versioning).
    NotAtomic,
    /// Conditions are answered with 501 (OpenStack Swift).
    RefusesConditions,
    /// `If-Match` holds only for an etag without quotes; answers have quotes (Ceph before 20, DigitalOcean Spaces).
    EtagsWithoutQuotesOnly,
    /// `If-Match` holds only for an etag with quotes; answers have none.
    EtagsWithQuotesOnly,
    /// Etags are weak, so that `If-Match`, which compares strongly, never holds (proxies that compress).
    WeakEtags,
    /// Etags are weak in answers with a body only (nginx with gzip).
    WeakEtagsOfReads,
    /// Answers have no etag (a proxy that strips headers).
    NoEtags,
    /// A conditional deletion checks, and deletes a moment later (Ceph).
    DeletionNotAtomic,
    /// A deletion's condition is ignored (S3 before 2025, many servers).
    DeletionIgnoresConditions,
    /// A read may show the version before the last (caches, replicas).
    StaleReads,
    /// A listing ignores the prefix and has all keys (small S3 servers).
    ListingIgnoresPrefix,
    /// Writing and deleting is denied.
    ReadOnly,
    /// There is no bucket.
    NoBucket,
    /// The clocks differ by more than 15 minutes.
    ClockSkewed,
    /// A web page with status 200 for everything (captive portal, wrong port).
    WebPage,
    /// A second write to one key within a second is answered with 429 (Google Cloud Storage, Cloudflare R2).
    OneWritePerSecond,
}
