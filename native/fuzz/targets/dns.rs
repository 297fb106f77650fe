//! Reads an answer of a DNS server, or refuses it within its bounds. The same services must be read from an
//! answer that is written without compression. The input is either a whole message, or the part after the
//! question.
#![no_main]

// Only the reader is included: its crate would add an async runtime.
#[path = "../../../rust_node/src/distribution/dns/answer.rs"]
mod answer;

use answer::{NAME, RECORDS, Service};
use libfuzzer_sys::fuzz_target;

/// Number 7; the same as in the seeds.
const ASKED: &str = "_dist._tcp.app.internal";

fuzz_target!(|bytes: &[u8]| {
    let question = answer::question(7, ASKED).expect("a name");
    let _cut = answer::is_cut(bytes);
    check(bytes, &question);
    let Some((counts, rest)) = bytes.split_at_checked(8) else { return };
    let mut message = question.clone();
    message[2] = counts[0] | 0x80;
    message[3] = counts[1] & 0xf0;
    message[6..12].copy_from_slice(&counts[2..]);
    message.extend(rest);
    assert!(answer::answers(&message, &question).is_some());
    check(&message, &question);
});

fn check(message: &[u8], question: &[u8]) {
    let Ok(services) = answer::read(message, question) else { return };
    assert!(services.len() <= RECORDS);
    for Service { host, .. } in &services {
        assert!((1..=NAME).contains(&host.len()) && host.is_ascii(), "{host:?}");
        assert!(host.split('.').all(|label| (1..=63).contains(&label.len())), "{host:?}");
    }
    assert_eq!(answer::read(&written(&services, question), question), Ok(services));
}

/// An answer with these services.
fn written(services: &[Service], question: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2] |= 0x80;
    message[6..8].copy_from_slice(&u16::try_from(services.len()).expect("bounded").to_be_bytes());
    for Service { host, port } in services {
        let labels = host.split('.').flat_map(|label| {
            let length = u8::try_from(label.len()).expect("bounded");
            std::iter::once(length).chain(label.bytes())
        });
        let name: Vec<u8> = labels.chain([0]).collect();
        message.extend([0, 0, 33, 0, 1, 0, 0, 0, 60]);
        message.extend(u16::try_from(name.len() + 6).expect("bounded").to_be_bytes());
        message.extend([0, 1, 0, 2]);
        message.extend(port.to_be_bytes());
        message.extend(name);
    }
    message
}
