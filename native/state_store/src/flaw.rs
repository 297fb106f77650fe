//! Why a store cannot guarantee one owner for each key.

/// Why a store is refused. Found by [`crate::Store::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    ConditionsIgnored,
    ConditionsNotAtomic,
    ConditionsRefused,
    EtagsNotUsable,
    WeakEtags,
    StaleReads,
    DeletionsIgnoreConditions,
    CredentialsReadOnly,
}

impl Flaw {
    /// Its name, the same in Rust and Elixir.
    pub fn kind(self) -> &'static str {
        self.words().0
    }

    /// For operators: what was observed, what it means, what to do.
    pub fn problem(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::ConditionsIgnored => (
                "conditions_ignored",
                "this store, or a proxy in front of it, ignores If-Match and If-None-Match: two nodes could run the same \
                 server. Use a store with conditional writes, or let the proxy pass these headers",
            ),
            Self::ConditionsNotAtomic => (
                "conditions_not_atomic",
                "of several conditional writes at the same time this store applies more than one: two nodes could run the \
                 same server. Use a store whose conditional writes are atomic; on Ceph, a bucket without versioning",
            ),
            Self::ConditionsRefused => (
                "conditions_refused",
                "this store answers conditional writes with an error: it cannot keep one owner for each key. Use a store \
                 with conditional writes (If-Match and If-None-Match on PUT)",
            ),
            Self::EtagsNotUsable => (
                "etags_not_usable",
                "this store refuses a write on condition of the etag that it has just returned, with and without quotes: no state could ever \
                 be updated. A proxy may change the ETag header",
            ),
            Self::WeakEtags => (
                "weak_etags",
                "this store, or a proxy in front of it that compresses, gives weak etags (W/\"...\"), and writes under them \
                 are refused: no state could ever be updated. Switch off compression in the proxy",
            ),
            Self::StaleReads => (
                "stale_reads",
                "a read gave something else than what had just been written: this store, or a cache in front of it, answers \
                 with old versions. Use a store with strong consistency, without a cache",
            ),
            Self::DeletionsIgnoreConditions => (
                "deletions_ignore_conditions",
                "this store, or a proxy in front of it, deletes an object although the condition of the deletion does not \
                 hold: a deletion could remove a newer state. Use a store with conditional deletion, or let the proxy pass \
                 If-Match",
            ),
            Self::CredentialsReadOnly => (
                "credentials_read_only",
                "the credentials may read and list, but not write or delete objects under this URL. Allow GetObject, \
                 PutObject, DeleteObject and ListBucket",
            ),
        }
    }
}
