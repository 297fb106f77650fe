//! Whatever the check lets through, the decoder behind it reads without a panic and to the same byte. (What is written again
//! is the business of `message`: a decoded term of others is never sent on.)
#![no_main]

use handoff_wire::check;
use handoff_wire::term::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(length) = check(bytes) else { return };
    assert!(length <= bytes.len());
    // What follows a term is not looked at.
    assert_eq!(check(&bytes[..length]), Ok(length));
    if let Ok((_, used)) = decode(bytes) {
        assert_eq!(used, length);
    }
});
