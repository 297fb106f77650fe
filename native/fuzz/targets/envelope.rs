//! A stored object, or an object around any bytes as its meta, is read or refused: no panic, whatever the store holds.
#![no_main]

// The reader by itself: the crate around it brings an HTTP client.
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
