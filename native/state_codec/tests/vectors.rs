//! This crate gives the results recorded from Elixir 1.20's JSON module on OTP 29.

mod common;

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{Value, parse, write};
use eetf::Term;
use serde_json::Value as Json;
use state_codec::{Output, ReadError, WriteError, text};

fn recorded(part: &str) -> Vec<Json> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test/vectors/codec.json");
    let file = std::fs::read_to_string(path).expect("the recorded answers are in the repository");
    let recorded: Json = serde_json::from_str(&file).expect("JSON");
    recorded[part].as_array().expect("a list of answers").clone()
}

fn bytes(answer: &Json, field: &str) -> Option<Vec<u8>> {
    answer.get(field).map(|bytes| BASE64_STANDARD.decode(bytes.as_str().expect("a string")).expect("base64"))
}

#[test]
fn a_recorded_text_gives_its_term_or_an_error() {
    for answer in recorded("decode") {
        let text = bytes(&answer, "text_base64").expect("a text");
        let read = text::utf8(&text).map(parse);
        if let Some(Err(ReadError::TooDeep { .. })) = read {
            continue;
        }
        let expected =
            bytes(&answer, "term_etf_base64").map(|etf| value(&Term::decode(Cursor::new(etf)).expect("a term")));
        assert_eq!(read.and_then(Result::ok), expected, "{}", String::from_utf8_lossy(&text));
    }
}

/// Elixir writes each value in one form only, so reading and writing must give the same bytes.
#[test]
fn recorded_json_is_written_unchanged() {
    for answer in recorded("encode") {
        let Some(json) = bytes(&answer, "json_base64") else { continue };
        let json = String::from_utf8(json).expect("JSON is UTF-8");
        match parse(&json) {
            Err(ReadError::TooDeep { .. }) => {}
            read => assert_eq!(write(&read.expect("it was written by Elixir")), json),
        }
    }
}

#[test]
fn a_string_that_elixir_refuses_to_write_is_refused() {
    let refused =
        recorded("encode").into_iter().filter(|answer| answer.get("error") == Some(&Json::from("ErlangError")));
    for answer in refused {
        let term = Term::decode(Cursor::new(bytes(&answer, "term_etf_base64").expect("a term"))).expect("a term");
        assert!(strings(&term).iter().any(|bytes| {
            text::put_string(&mut Output::new(Vec::new(), usize::MAX), bytes) == Err(WriteError::InvalidUtf8)
        }));
    }
}

fn strings(term: &Term) -> Vec<Vec<u8>> {
    match term {
        Term::Binary(binary) => vec![binary.bytes.clone()],
        Term::List(list) => list.elements.iter().flat_map(strings).collect(),
        Term::Map(map) => map.map.iter().flat_map(|(key, value)| [strings(key), strings(value)].concat()).collect(),
        _ => Vec::new(),
    }
}

/// The recorded term as a value of this crate. Only terms with a JSON form were recorded.
fn value(term: &Term) -> Value {
    let string = |term: &Term| match term {
        Term::Binary(binary) => String::from_utf8(binary.bytes.clone()).expect("JSON strings are UTF-8"),
        other => panic!("not a string: {other}"),
    };
    match term {
        Term::Atom(atom) => match atom.name.as_str() {
            "nil" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            other => panic!("not a JSON word: {other}"),
        },
        Term::FixInteger(integer) => Value::Integer(integer.value.into()),
        Term::BigInteger(integer) => {
            let digits = integer.value.to_string();
            digits.parse().map_or(Value::Big(digits), Value::Integer)
        }
        Term::Float(float) => Value::Float(float.value),
        Term::Binary(_) => Value::String(string(term)),
        Term::List(list) => Value::Array(list.elements.iter().map(value).collect()),
        Term::ByteList(list) => Value::Array(list.bytes.iter().map(|&byte| Value::Integer(byte.into())).collect()),
        Term::Map(map) => Value::Object(map.map.iter().map(|(key, term)| (string(key), value(term))).collect()),
        other => panic!("no JSON: {other}"),
    }
}
