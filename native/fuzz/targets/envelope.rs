//! Reads a stored object, or an object with arbitrary bytes as its meta, or refuses it. No content of the
//! store may cause a panic.
#![no_main]

// Only the reader is included: its crate would add an HTTP client.
#[path = "../../store_audit/src/object.rs"]
mod object;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _heartbeat = object::heartbeat(bytes);
    let _server = object::server(bytes);
    let around = format!(r#"{{"vsn":1,"state":{{}},"meta":"{}"}}"#, STANDARD.encode(bytes));
    let _server = object::server(around.as_bytes());
});
