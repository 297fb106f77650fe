//! A term that passes the check decodes without a panic, and the check of it alone ends at the same byte.
#![no_main]

use etf::Checked;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((term, rest)) = Checked::first(bytes) else { return };
    assert_eq!([term.as_bytes(), rest].concat(), bytes);
    assert_eq!(Checked::whole(term.as_bytes()), Ok(term.clone()));
    let _either = term.decode();
});
