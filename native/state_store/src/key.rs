//! Valid keys, which every store keeps under exactly this name, and unique parts of keys.

use ring::rand::{SecureRandom, SystemRandom};

use crate::Error;

/// The limit of S3, the lowest of all stores.
const MAX_BYTES: usize = 1_024;

/// Keys are paths. A key that a provider would silently treat as another one is refused.
pub(crate) fn check(key: &str) -> Result<(), Error> {
    let refuse = |reason| Err(Error::InvalidKey { reason });
    match key {
        "" => refuse("it is empty"),
        _ if key.len() > MAX_BYTES => refuse("it is longer than 1024 bytes"),
        _ if key.chars().any(|c| c.is_ascii_control()) => refuse("it has a control character"),
        _ if key.split('/').any(str::is_empty) => refuse("it starts or ends with a slash, or has two in a row"),
        _ if key.split('/').any(|part| part == "." || part == "..") => refuse("a part of it is . or .."),
        _ => Ok(()),
    }
}

/// 32 random hexadecimal digits, unique across processes.
pub(crate) fn nonce() -> String {
    let mut bytes = [0; 16];
    // Without the system's random numbers no request works either: signatures need them too.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_store_would_read_as_other_keys_are_refused() {
        for key in ["", "/a", "a/", "a//b", "a/../b", "./a", "a\nb", &"k".repeat(1_025)] {
            assert!(matches!(check(key), Err(Error::InvalidKey { .. })), "{key:?}");
        }
    }

    #[test]
    fn slashes_spaces_unicode_and_percent_signs_are_valid() {
        for key in ["a/b/c", "a b", "Ünïcode/日本語", "50%", "a%2Fb", "x+y&z=1?#", "..."] {
            assert_eq!(check(key), Ok(()), "{key:?}");
        }
    }
}
