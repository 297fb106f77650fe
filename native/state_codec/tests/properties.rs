//! Properties of all texts, strings and numbers, compared with the standard library, with `serde_json`, and
//! between kernels.

mod common;

use common::{Value, parse, write};
use proptest::prelude::*;
use serde_json::Value as Json;
use state_codec::output::SLACK;
use state_codec::scan::{Kernel, copy_plain, find_special};
use state_codec::{MAX_DEPTH, Output, ReadError, number, text};

/// Bytes in which plain, special and non-ASCII ones all are frequent.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => b' '..=b'~', 1 => any::<u8>()];
    prop_oneof![
        proptest::collection::vec(byte, 0..200),
        proptest::collection::vec(b'a'..=b'z', 0..300),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Integer),
        (-1000..1000_i64).prop_map(Value::Integer),
        "-?[1-9][0-9]{19,40}".prop_map(Value::Big),
        any::<f64>().prop_filter("JSON has no such float", |float| float.is_finite()).prop_map(Value::Float),
        ".{0,40}".prop_map(Value::String),
        "[a-z\"\\\\\n]{0,100}".prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 100, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            proptest::collection::vec((".{0,12}", inner), 0..8).prop_map(Value::Object),
        ]
    })
}

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Texts and damaged texts: characters of every length, escapes close together, damage at random places. They
/// are long enough for the blocks that are scanned at once.
fn almost_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[a-z ]{1,40}",
        2 => "[\"\\\\\n\u{1}/]{1,4}",
        2 => "[éß\u{7ff}\u{800}中\u{d7ff}\u{e000}\u{ffff}\u{10000}🎉\u{10ffff}]{1,20}",
    ];
    let broken = prop_oneof![3 => Just(0), 1 => 1..4_usize];
    (proptest::collection::vec(piece, 1..30), broken, any::<[(prop::sample::Index, u8); 4]>()).prop_map(
        |(pieces, broken, places)| {
            let mut bytes = pieces.concat().into_bytes();
            for (place, byte) in places.into_iter().take(broken) {
                let at = place.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_string_is_written_as_serde_json_reads_it_and_refused_when_it_is_not_utf8(
        bytes in prop_oneof![4 => almost_text(), 1 => bytes()],
    ) {
        let mut output = Output::new(Vec::new(), usize::MAX);
        match std::str::from_utf8(&bytes) {
            Ok(string) => {
                text::put_string(&mut output, &bytes).unwrap();
                let json = std::str::from_utf8(output.written()).unwrap();
                prop_assert_eq!(&serde_json::from_str::<String>(json).unwrap(), string);
                prop_assert_eq!(parse(json), Ok(Value::String(string.to_owned())));
            }
            Err(_) => {
                text::put_string(&mut output, &bytes).unwrap_err();
                prop_assert!(output.is_empty());
            }
        }
    }

    #[test]
    fn escapes_of_all_kinds_are_read_wherever_they_stand_in_a_long_string(
        pieces in proptest::collection::vec(
            prop_oneof![2 => "[a-zé中🎉]{0,40}", 2 => r#"(\\["\\/bfnrt]){1,3}"#, 1 => r"\\u00[0-9a-fA-F]{2}", 1 => r"\\ud83c\\udf89"],
            1..40,
        ),
        end in prop_oneof![3 => Just("\""), 1 => Just(""), 1 => Just("\\x\""), 1 => Just("\n\""), 1 => Just("\\ud800\"")],
    ) {
        let text = format!("\"{}{end}", pieces.concat());
        match (serde_json::from_str::<String>(&text), parse(&text)) {
            (Ok(expected), Ok(Value::String(string))) => prop_assert_eq!(string, expected),
            (Err(_), Err(_)) => {}
            (expected, result) => prop_assert!(false, "{:?} instead of {:?}", result, expected),
        }
    }

    #[test]
    fn a_price_is_written_as_it_was_rounded(hundredths in 1..1_000_000_000_000_000_i64, negative in any::<bool>()) {
        prop_assume!(hundredths % 100 != 0);
        let sign = if negative { "-" } else { "" };
        let plain = format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100);
        let mut output = Output::new(Vec::new(), usize::MAX);
        number::put_float(&mut output, plain.parse().unwrap()).unwrap();
        prop_assert_eq!(std::str::from_utf8(output.written()).unwrap(), plain.trim_end_matches('0'));
    }
}

/// Every pair and triple of bytes that matters, at every position of a block and across its end.
#[test]
fn invalid_utf8_is_found_at_every_position_of_a_block() {
    const BYTES: [u8; 22] = [
        0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xef,
        0xf0, 0xf1, 0xf4, 0xf5,
    ];
    let mut output = Output::new(Vec::new(), usize::MAX);
    for at in [1, 13, 30, 31, 32, 62] {
        let mut bytes = vec![b'a'; 160];
        bytes[0] = b'"';
        for first in BYTES {
            for second in BYTES {
                for third in BYTES {
                    for fourth in [b'a', 0x80, 0xbf] {
                        bytes[at..at + 4].copy_from_slice(&[first, second, third, fourth]);
                        output.truncate(0);
                        let written = text::put_string(&mut output, &bytes);
                        assert_eq!(
                            written.is_ok(),
                            std::str::from_utf8(&bytes).is_ok(),
                            "{:x?} at {at}",
                            &bytes[at..at + 4]
                        );
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn every_kernel_finds_the_first_special_byte(bytes in bytes()) {
        let first = bytes.iter().position(|&byte| is_special(byte)).unwrap_or(bytes.len());
        let ascii = bytes[..first].is_ascii();
        prop_assert_eq!(find_special(&bytes), first);
        let mut target = vec![b'?'; bytes.len() + SLACK];
        for kernel in Kernel::available() {
            prop_assert_eq!(kernel.find_special(&bytes), first, "{:?}", kernel);
            let run = kernel.copy_plain(&bytes, &mut target);
            prop_assert_eq!(run.len, first, "{:?}", kernel);
            prop_assert_eq!(&target[..first], &bytes[..first], "{:?}", kernel);
            // Bytes behind the run may make it less certain, never more.
            prop_assert!(ascii || !run.ascii, "{:?}", kernel);
            prop_assert!(!bytes.is_ascii() || run.ascii, "{:?}", kernel);
        }
        prop_assert_eq!(copy_plain(&bytes, &mut target).len, first);
    }

    #[test]
    fn a_float_reads_back_as_itself(bits in any::<u64>()) {
        let float = f64::from_bits(bits);
        prop_assume!(float.is_finite());
        let mut output = Output::new(Vec::new(), usize::MAX);
        number::put_float(&mut output, float).unwrap();
        let text = std::str::from_utf8(output.written()).unwrap();
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
        prop_assert_eq!(parse(text), Ok(Value::Float(float)));
        prop_assert!(text.contains('.'), "{} would read back as an integer", text);
    }

    #[test]
    fn a_number_is_rounded_as_the_standard_library_does(number in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
        let expected = number.parse::<f64>().unwrap();
        match parse(&number) {
            Ok(Value::Float(float)) if number.starts_with("-0e") || number.starts_with("-0E") => {
                prop_assert_eq!(float.to_bits(), 0);
            }
            Ok(Value::Float(float)) => prop_assert_eq!(float.to_bits(), expected.to_bits()),
            Ok(Value::Integer(integer)) => prop_assert_eq!(number.parse::<i64>(), Ok(integer)),
            Ok(Value::Big(digits)) => {
                prop_assert!(number.parse::<i64>().is_err());
                prop_assert_eq!(digits, number);
            }
            Err(ReadError::NumberRange { at: 0 }) => prop_assert!(expected.is_infinite()),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_value_is_read_as_it_was_written(value in value()) {
        let text = write(&value);
        prop_assert_eq!(parse(&text), Ok(value));
        prop_assert!(serde_json::from_str::<Json>(&text).is_ok(), "{}", text);
    }

    /// Damaged JSON: accepted exactly when another parser accepts it.
    #[test]
    fn what_serde_json_refuses_is_refused(
        value in value(),
        at in any::<prop::sample::Index>(),
        with in prop_oneof![Just(String::new()), "[\\[\\]{},:\"\\\\0-9eE.+ntu -]{1,3}", ".", Just("\\ud83d".to_owned())],
        cut in 0..3_usize,
    ) {
        let text: Vec<char> = write(&value).chars().collect();
        let at = at.index(text.len() + 1);
        let behind = text.get(at + cut..).unwrap_or(&[]);
        let text: String = text[..at].iter().copied().chain(with.chars()).chain(behind.iter().copied()).collect();
        prop_assert_eq!(parse(&text).is_ok(), serde_json::from_str::<Json>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn any_text_ends_in_a_value_or_an_error(text in any::<String>()) {
        let _ends = parse(&text);
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(parse(&nested(MAX_DEPTH + 1)), Err(ReadError::TooDeep { at: MAX_DEPTH }));
    assert_eq!(parse(&r#"{"a":"#.repeat(1_000_000)), Err(ReadError::TooDeep { at: 5 * MAX_DEPTH }));
}

#[test]
fn the_error_of_a_refused_text_has_its_position() {
    for (text, error) in [
        ("", ReadError::UnexpectedEnd),
        ("[1,", ReadError::UnexpectedEnd),
        ("\"a", ReadError::UnexpectedEnd),
        ("[1,]", ReadError::UnexpectedByte { at: 3, byte: b']' }),
        ("{\"a\":1,}", ReadError::UnexpectedByte { at: 7, byte: b'}' }),
        ("{\"a\" 1}", ReadError::UnexpectedByte { at: 5, byte: b'1' }),
        ("[1}", ReadError::UnexpectedByte { at: 2, byte: b'}' }),
        ("nulx", ReadError::UnexpectedByte { at: 3, byte: b'x' }),
        ("\"\n\"", ReadError::UnexpectedByte { at: 1, byte: b'\n' }),
        ("\"\\x\"", ReadError::UnexpectedByte { at: 2, byte: b'x' }),
        ("\"\\ud800 abcdef\"", ReadError::BadEscape { at: 1 }),
        ("\"\\uzzzz\"", ReadError::BadEscape { at: 1 }),
        ("01", ReadError::UnexpectedByte { at: 1, byte: b'1' }),
        ("[1e400]", ReadError::NumberRange { at: 1 }),
    ] {
        assert_eq!(parse(text), Err(error), "{text}");
    }
}
