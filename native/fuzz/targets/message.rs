//! A message that is accepted must be equal after it was written and read again.
#![no_main]

use handoff_wire::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::from_bytes(bytes) else { return };
    let written = message.to_bytes().expect("an accepted message can be written");
    assert_eq!(Message::from_bytes(&written).expect("and read"), message);
});
