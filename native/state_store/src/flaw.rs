//! Why a store cannot guarantee one owner for each key.

/// Why a store is refused. Found by [`crate::Store::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// Conditions have no effect.
    ConditionsIgnored,
    /// Several concurrent writes under one condition are applied.
    ConditionsNotAtomic,
    /// Conditions are answered with an error.
    ConditionsRefused,
    /// A write under the current etag is refused, both with and without quotes.
    EtagsNotUsable,
    /// Etags are weak (`W/"..."`), and a write under one is refused.
    WeakEtags,
    /// A read does not return the write before it.
    StaleReads,
    /// A deletion of an old version deletes the new one.
    DeletionsIgnoreConditions,
    /// The credentials read, but may not write or delete.
    CredentialsReadOnly,
}

impl Flaw {
    /// Its name, the same in Rust and Elixir.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::ConditionsIgnored => "conditions_ignored",
            Self::ConditionsNotAtomic => "conditions_not_atomic",
            Self::ConditionsRefused => "conditions_refused",
            Self::EtagsNotUsable => "etags_not_usable",
            Self::WeakEtags => "weak_etags",
            Self::StaleReads => "stale_reads",
            Self::DeletionsIgnoreConditions => "deletions_ignore_conditions",
            Self::CredentialsReadOnly => "credentials_read_only",
        }
    }

    /// For operators: what was observed, what it means, what to do.
    #[must_use]
    pub fn problem(self) -> &'static str {
        match self {
            Self::ConditionsIgnored => {
                "this store, or a proxy in front of it, ignores If-Match and If-None-Match: two nodes could run the same \
                 server. Use a store with conditional writes, or let the proxy pass these headers"
            }
            Self::ConditionsNotAtomic => {
                "of several conditional writes at the same time this store applies more than one: two nodes could run the \
                 same server. Use a store whose conditional writes are atomic; on Ceph, a bucket without versioning"
            }
            Self::ConditionsRefused => {
                "this store answers conditional writes with an error: it cannot keep one owner for each key. Use a store \
                 with conditional writes (If-Match and If-None-Match on PUT)"
            }
            Self::EtagsNotUsable => {
                "this store refuses a write on condition of the etag that it has just returned, with and without quotes: no state could ever \
                 be updated. A proxy may change the ETag header"
            }
            Self::WeakEtags => {
                "this store, or a proxy in front of it that compresses, gives weak etags (W/\"...\"), and writes under them \
                 are refused: no state could ever be updated. Switch off compression in the proxy"
            }
            Self::StaleReads => {
                "a read gave something else than what had just been written: this store, or a cache in front of it, answers \
                 with old versions. Use a store with strong consistency, without a cache"
            }
            Self::DeletionsIgnoreConditions => {
                "this store deletes an object although the condition of the deletion does not hold: a deletion could \
                 remove a newer state. Use a store with conditional deletion"
            }
            Self::CredentialsReadOnly => {
                "the credentials may read and list, but not write or delete objects under this URL. Allow GetObject, \
                 PutObject, DeleteObject and ListBucket"
            }
        }
    }
}
