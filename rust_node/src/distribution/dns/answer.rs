//! Reads the answers of DNS servers, which may be hostile.
//!
//! Guarantee: at most [`RECORDS`] records of an answer are read, and at most [`NAME`] bytes of a name. A
//! compressed name follows at most [`JUMPS`] pointers, each to an earlier position. So the work and the
//! memory for an answer are bounded. An answer counts only if it repeats the id and the question.

/// The most records that are read of one answer.
pub(super) const RECORDS: usize = 256;
/// The longest name as text. With the length bytes of the labels and the root label it has 255 bytes.
pub(super) const NAME: usize = 253;
/// The longest label of a name.
pub(super) const LABEL: usize = 63;
/// The most pointers in one name: a name has no more labels than this.
const JUMPS: usize = 127;
const SRV: u16 = 33;
const INTERNET: u16 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    #[error("a malformed answer")]
    Malformed,
    /// The id or the question is not the one that was sent.
    #[error("an answer to something else")]
    Other,
    #[error("no such name")]
    NoName,
    /// The error code (RCODE) of the server.
    #[error("the server answers with code {0}")]
    Code(u8),
}

/// Builds a question for the SRV records of a name; `None` if the name is invalid.
pub(super) fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // One question; recursion desired.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LABEL).contains(&usize::from(*length)))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(SRV.to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    (name.len() <= NAME).then_some(message)
}

const HEADER: usize = 12;

pub(super) fn is_cut(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// The bytes after the question, if the message is an answer to that question.
pub(super) fn answers(message: &[u8], question: &[u8]) -> Option<usize> {
    let asked = question.get(HEADER..)?;
    let is_answer = message.get(2)? & 0x80 != 0 && message.get(..2)? == question.get(..2)?;
    let repeated = message.get(HEADER..HEADER + asked.len())?;
    (is_answer && message.get(4..6)? == [0, 1] && repeated.eq_ignore_ascii_case(asked)).then_some(HEADER + asked.len())
}

pub(super) fn read(message: &[u8], question: &[u8]) -> Result<Vec<Service>, AnswerError> {
    let mut at = answers(message, question).ok_or(AnswerError::Other)?;
    match message.get(3).map_or(0, |flags| flags & 0x0f) {
        0 => {}
        3 => return Err(AnswerError::NoName),
        code => return Err(AnswerError::Code(code)),
    }
    let count = number(message, 6).ok_or(AnswerError::Malformed)?;
    let mut services = Vec::new();
    for _ in 0..usize::from(count).min(RECORDS) {
        let (service, next) = record(message, at).ok_or(AnswerError::Malformed)?;
        services.extend(service);
        at = next;
    }
    Ok(services)
}

/// Reads the record at `at`. Returns the service, if the record has one, and the position of the next record;
/// `None` if the record is malformed.
fn record(message: &[u8], at: usize) -> Option<(Option<Service>, usize)> {
    let (_owner, at) = name(message, at)?;
    let (kind, class) = (number(message, at)?, number(message, at + 2)?);
    let data = at + 10;
    let end = data + usize::from(number(message, at + 8)?);
    message.get(data..end)?;
    if (kind, class) != (SRV, INTERNET) {
        return Some((None, end));
    }
    let port = number(message, data + 4)?;
    let (host, after) = name(message, data + 6)?;
    if after > end {
        return None;
    }
    // The root name as host means that the service is not available.
    let is_host = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let service = (!host.is_empty() && is_host(&host)).then_some(Service { host, port });
    Some((service, end))
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

/// Reads the name at `at`. Returns the name without its final dot and the position after it.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut end = None;
    // A pointer must lead before everything of the name that was read so far.
    let (mut before, mut jumps) = (at, 0);
    loop {
        let length = *message.get(at)?;
        match usize::from(length) {
            0 => return Some((name, end.unwrap_or(at + 1))),
            length @ 1..=LABEL => {
                let label = message.get(at + 1..=at + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                // A dot inside a label does not separate labels, and no host name has one.
                let char = |byte: &u8| if *byte == b'.' { char::REPLACEMENT_CHARACTER } else { char::from(*byte) };
                name.extend(label.iter().map(char));
                if name.chars().count() > NAME {
                    return None;
                }
                at += 1 + length;
            }
            0xc0.. => {
                let to = usize::from(number(message, at)? & 0x3fff);
                jumps += 1;
                if to >= before || jumps > JUMPS {
                    return None;
                }
                end = end.or(Some(at + 2));
                (before, at) = (to, to);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME_ASKED: &str = "_dist._tcp.app.internal";

    fn asked() -> Vec<u8> {
        question(7, NAME_ASKED).expect("a name")
    }

    /// An answer whose records point to the question's name and have `hosts` as targets.
    fn answer(hosts: &[&[u8]], count: u16) -> Vec<u8> {
        let mut message = asked();
        message[2] |= 0x80;
        message[6..8].copy_from_slice(&count.to_be_bytes());
        for host in hosts {
            message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            message.extend(u16::try_from(host.len() + 6).expect("short").to_be_bytes());
            message.extend([0, 0, 0, 0, 0x23, 0x91]);
            message.extend(*host);
        }
        message
    }

    #[test]
    fn services_are_read_and_a_name_may_point_to_an_earlier_one() {
        // The first target is "pod-1" followed by a pointer to "app.internal" in the question.
        let message = answer(&[b"\x05pod-1\xc0\x17", b"\x05pod-2\x01x\x00", b"\x00"], 3);
        let service = |host: &str| Service { host: host.to_owned(), port: 9_105 };
        assert_eq!(read(&message, &asked()), Ok(vec![service("pod-1.app.internal"), service("pod-2.x")]));
    }

    #[test]
    fn names_with_circular_pointers_or_too_many_bytes_are_malformed() {
        let first = u8::try_from(asked().len() + 18).expect("short");
        for host in [&[0xc0, first][..], &[1, b'a', 0xc0, first], &[0xff, 0xff], &[0x80, 1], &[63, b'a']] {
            assert_eq!(read(&answer(&[host], 1), &asked()), Err(AnswerError::Malformed), "{host:?}");
        }
        let label: &[u8] = &[[63].as_slice(), &[b'a'; 63]].concat();
        let long = [label.repeat(4).as_slice(), &[0]].concat();
        assert_eq!(read(&answer(&[&long], 1), &asked()), Err(AnswerError::Malformed));
    }

    #[test]
    fn a_name_has_the_longest_length_of_dns_and_a_bounded_number_of_pointers() {
        let label = |length: u8| [&[length][..], &vec![b'a'; usize::from(length)]].concat();
        let name = |last: u8| [label(63).repeat(3), label(last), vec![0]].concat();
        let host = |name: &[u8]| read(&answer(&[name], 1), &asked()).map(|services| services[0].host.len());
        assert_eq!((name(61).len(), host(&name(61))), (255, Ok(NAME)));
        assert_eq!(host(&name(62)), Err(AnswerError::Malformed));
        // Pointers to pointers, each to the one before.
        let chain = |length: usize| {
            let mut message = answer(&[], 2);
            let first = message.len() + 11;
            message.extend([0, 0, 1, 0, 1, 0, 0, 0, 60]);
            message.extend(u16::try_from(1 + 2 * length).expect("short").to_be_bytes());
            message.push(0);
            for at in 0..length {
                let to = u16::try_from(if at == 0 { first } else { first + 1 + 2 * (at - 1) }).expect("short");
                message.extend((0xc000 | to).to_be_bytes());
            }
            let last = u16::try_from(first + 1 + 2 * (length - 1)).expect("short");
            message.extend((0xc000 | last).to_be_bytes());
            message.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 0]);
            message
        };
        assert_eq!(read(&chain(JUMPS - 1), &asked()), Ok(vec![]));
        assert_eq!(read(&chain(JUMPS), &asked()), Err(AnswerError::Malformed));
    }

    #[test]
    fn addresses_between_services_are_skipped_and_a_host_ends_with_its_record() {
        let mut message = answer(&[b"\x01a\x00"], 4);
        message.extend(b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07");
        message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01");
        message.extend(b"\xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x09\0\0\0\0\0\x07\x01b\0");
        let service = |host: &str, port| Service { host: host.to_owned(), port };
        assert_eq!(read(&message, &asked()), Ok(vec![service("a", 9_105), service("b", 7)]));
        let length = message.len() - 10;
        message[length] = 8;
        assert_eq!(read(&message, &asked()), Err(AnswerError::Malformed), "its end is not in its record");
    }

    #[test]
    fn records_above_the_bound_and_hosts_with_invalid_characters_are_left_out() {
        let hosts: Vec<&[u8]> = vec![b"\x01a\x00"; 1_000];
        assert_eq!(read(&answer(&hosts, 1_000), &asked()).map(|services| services.len()), Ok(RECORDS));
        let strange: [&[u8]; 4] = [b"\x03a@b\x00", b"\x02a\n\x00", b"\x03a.b\x00", b"\x01\xe9\x00"];
        assert_eq!(read(&answer(&strange, 4), &asked()), Ok(vec![]));
    }

    #[test]
    fn answers_with_another_id_or_question_are_refused() {
        let good = answer(&[b"\x01a\x00"], 1);
        for at in [0, 2, 4, 5, 13, 20] {
            let mut bad = good.clone();
            bad[at] ^= 0x81;
            assert_eq!(read(&bad, &asked()), Err(AnswerError::Other), "{at}");
        }
        assert_eq!(read(&[], &asked()), Err(AnswerError::Other));
        let mut missing = good;
        missing[3] |= 3;
        assert_eq!(read(&missing, &asked()), Err(AnswerError::NoName));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_follows_the_question_is_bounded(tail in prop::collection::vec(any::<u8>(), 0..600), count: u16) {
            let mut message = answer(&[], count);
            message.extend(tail);
            bounded(&message)?;
        }

        #[test]
        fn good_answers_with_wrong_bytes_are_bounded(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut message = answer(&[b"\x05pod-1\xc0\x17", b"\x05pod-2\xc0\x17", b"\x01a\x00"], 3);
            for (at, byte) in changes {
                let at = at.index(message.len());
                message[at] = byte;
            }
            bounded(&message)?;
        }
    }

    fn bounded(message: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(services) = read(message, &asked()) {
            prop_assert!(services.len() <= RECORDS);
            prop_assert!(services.iter().all(|service| (1..=NAME).contains(&service.host.len())));
        }
        Ok(())
    }
}
