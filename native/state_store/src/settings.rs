//! How a store is opened.

use std::fmt;
use std::time::Duration;

/// Bounds and provider options of one store.
#[derive(Clone)]
pub struct Settings {
    /// The provider's own options by the names `object_store` gives them (`region`, `endpoint`, `access_key_id`, `account_key`,
    /// `service_account_key`, ...). They win over the environment.
    pub options: Vec<(String, String)>,
    /// Requests in flight at a time.
    pub max_in_flight: usize,
    /// Requests that may wait for their turn.
    pub max_waiting: usize,
    /// Requests for keys that contain this text do not wait for others: see `gate`. Empty for no such keys.
    pub urgent_keys: String,
    /// Timeout of one attempt of a request, within the request's own timeout.
    pub attempt_timeout: Duration,
    /// The largest object that is read or written.
    pub max_object_bytes: u64,
    /// Bytes of written objects that are kept for the next read; 0 keeps none.
    pub cache_bytes: usize,
    /// How long it is kept.
    pub cache_lasts: Duration,
    /// Whether nothing may be changed: writes and deletions are refused, and opening a directory creates nothing.
    pub read_only: bool,
    /// Whether conditional writes are assumed to work, without a proof: for credentials that cannot write at the start.
    pub assume_conditions: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            options: Vec::new(),
            max_in_flight: 64,
            max_waiting: 4_096,
            urgent_keys: String::new(),
            attempt_timeout: Duration::from_secs(10),
            max_object_bytes: 64 * 1024 * 1024,
            cache_bytes: 8 * 1024 * 1024,
            cache_lasts: Duration::from_secs(5),
            read_only: false,
            assume_conditions: false,
        }
    }
}

impl fmt::Debug for Settings {
    /// Names of options only: any value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.options.iter().map(|(name, _secret)| name).collect();
        f.debug_struct("Settings")
            .field("options", &names)
            .field("max_in_flight", &self.max_in_flight)
            .field("max_waiting", &self.max_waiting)
            .field("urgent_keys", &self.urgent_keys)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("max_object_bytes", &self.max_object_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .field("cache_lasts", &self.cache_lasts)
            .field("read_only", &self.read_only)
            .field("assume_conditions", &self.assume_conditions)
            .finish()
    }
}

impl Settings {
    /// `text` without the values of options, for messages of other libraries.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.options
            .iter()
            .filter(|(_name, value)| value.len() > 3)
            .fold(text.to_owned(), |text, (_name, value)| text.replace(value, "[redacted]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_contains_no_secret() {
        let settings =
            Settings { options: vec![("secret_access_key".into(), "hunter22".into())], ..Settings::default() };
        let shown = format!("{settings:?}");
        assert!(shown.contains("secret_access_key") && !shown.contains("hunter22"), "{shown}");
        assert_eq!(settings.redact("key hunter22 is bad"), "key [redacted] is bad");
    }
}
