//! A term that passes the check must decode without a panic, and the check must end at the same byte as the
//! decoder.
#![no_main]

use etf::Checked;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((term, rest)) = Checked::first(bytes) else { return };
    assert_eq!([term.as_bytes(), rest].concat(), bytes);
    assert_eq!(Checked::whole(term.as_bytes()), Ok(term.clone()));
    let _either = term.decode();
});
