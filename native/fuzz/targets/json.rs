//! A text that is read must be read equally after it was written again. It must be refused exactly when
//! another parser refuses it, except for what that parser does not check: ranges, lone surrogates, depth.
#![no_main]

// The reference that builds values from events and writes them.
#[path = "../../state_codec/tests/common/mod.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use state_codec::ReadError;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let other = serde_json::from_str::<IgnoredAny>(text);
    match common::parse(text) {
        Ok(value) => {
            assert!(other.is_ok(), "{text} is not JSON"); assert_eq!(common::parse(&common::write(&value)),
            Ok(value));
        }
        Err(ReadError::NumberRange { .. } | ReadError::TooDeep { .. }) => {}
        Err(error) => assert!(other.is_err() || surrogate(text), "{text} is JSON: {error}"),
    }
});

fn surrogate(text: &str) -> bool {
    text.contains("\\ud") || text.contains("\\uD")
}
