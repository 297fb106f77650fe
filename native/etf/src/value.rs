//! Values of types that serde knows, in the shapes of `term_serde`.

use std::borrow::Cow;

use eetf::{Binary, ByteList, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;
use term_serde::{Kind, MakeTerm, ReadTerm, from_term, to_term};

use crate::error::Error;
use crate::read::{MAX_TEXT, atom_name, read_f64, read_i64, read_list, read_u64};
use crate::write::{atom, float, int, list, text, tuple, uint};

/// The longest list in a value.
const MAX_LIST: usize = 20_000;

pub fn read_value<T: DeserializeOwned>(term: &Term, field: &'static str) -> Result<T, Error> {
    from_term(Read::Term(term)).map_err(|source| Error::Value { field, source })
}

/// The term of a value; `undefined` for a value that has no term, such as `()`.
pub fn value<T: Serialize + ?Sized>(value: &T) -> Term {
    to_term(Make, value).unwrap_or_else(|_| atom("undefined"))
}

#[derive(Clone, Copy)]
enum Read<'t> {
    Term(&'t Term),
    /// An element of a list of bytes.
    Byte(u8),
}

fn too_long() -> term_serde::Error {
    term_serde::Error::new(format!("a list of more than {MAX_LIST}"))
}

impl<'t> ReadTerm<'t> for Read<'t> {
    fn kind(self) -> Result<Kind<'t, Self>, term_serde::Error> {
        let term = match self {
            Read::Term(term) => term,
            Read::Byte(byte) => return Ok(Kind::Unsigned(byte.into())),
        };
        let other = |error: Error| term_serde::Error::new(error.to_string());
        Ok(match term {
            Term::Atom(atom) => Kind::Atom(Cow::Borrowed(&atom.name)),
            Term::FixInteger(_) | Term::BigInteger(_) => match read_u64(term, "value") {
                Ok(number) => Kind::Unsigned(number),
                Err(_) => Kind::Signed(read_i64(term, "value").map_err(other)?),
            },
            Term::Float(_) => Kind::Float(read_f64(term, "value").map_err(other)?),
            Term::Binary(Binary { bytes }) if bytes.len() <= MAX_TEXT => {
                Kind::Text(std::str::from_utf8(bytes).map_err(|_| term_serde::Error::new("text that is not UTF-8"))?)
            }
            Term::ByteList(ByteList { bytes }) if bytes.len() <= MAX_LIST => {
                Kind::List(bytes.iter().map(|byte| Read::Byte(*byte)).collect())
            }
            Term::List(_) | Term::ImproperList(_) => match read_list(term, "value").map_err(other)? {
                Cow::Borrowed(elements) if elements.len() <= MAX_LIST => {
                    Kind::List(elements.iter().map(Read::Term).collect())
                }
                _longer => return Err(too_long()),
            },
            Term::ByteList(_) => return Err(too_long()),
            Term::Tuple(tuple) => Kind::Tuple(tuple.elements.iter().map(Read::Term).collect()),
            Term::Map(map) => {
                Kind::Map(map.map.iter().map(|(key, value)| (Read::Term(key), Read::Term(value))).collect())
            }
            Term::Binary(_) => return Err(term_serde::Error::new(format!("text of more than {MAX_TEXT} bytes"))),
            _other => return Err(term_serde::Error::new("a term of a kind that no value has")),
        })
    }

    fn is_nil(self) -> bool {
        matches!(self, Read::Term(term) if atom_name(term) == Some("nil"))
    }
}

#[derive(Clone, Copy)]
struct Make;

impl MakeTerm for Make {
    type Term = Term;

    fn atom(self, name: &str) -> Term {
        atom(name)
    }
    fn unsigned(self, number: u64) -> Term {
        uint(number)
    }
    fn signed(self, number: i64) -> Term {
        int(number)
    }
    fn float(self, number: f64) -> Term {
        float(number)
    }
    fn text(self, value: &str) -> Term {
        text(value)
    }
    fn list(self, elements: Vec<Term>) -> Term {
        list(elements)
    }
    fn tuple(self, elements: Vec<Term>) -> Term {
        tuple(elements)
    }
    fn map(self, pairs: Vec<(Term, Term)>) -> Term {
        Term::from(eetf::Map::from(pairs.into_iter().collect::<std::collections::HashMap<_, _>>()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::checked::Checked;
    use crate::write::{binary, encode, map};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Plain,
        One(i8),
        Two(u32, String),
        Named { first: bool, second: Option<u64> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        ratio: f64,
        absent: Option<i64>,
        #[serde(default)]
        later: u32,
        bytes: Vec<u8>,
        pair: (Choice, Vec<Choice>),
        counts: BTreeMap<String, u64>,
    }

    fn sample() -> Sample {
        let named = Choice::Named { first: true, second: None };
        Sample {
            name: "zürich".into(),
            ratio: 0.5,
            absent: None,
            later: 7,
            bytes: vec![1, 2, 255],
            pair: (Choice::Plain, vec![Choice::One(-1), Choice::Two(u32::MAX, "b".into()), named]),
            counts: BTreeMap::new(),
        }
    }

    fn fields(changed: &str, value: Term) -> Term {
        let empty = || list([]);
        let all = [
            ("name", text("a")),
            ("ratio", int(1)),
            ("bytes", empty()),
            ("pair", tuple([atom("plain"), empty()])),
            ("counts", map([])),
            ("a_key_of_a_later_release", empty()),
        ];
        map(all.into_iter().filter(|(key, _)| *key != changed).chain([(changed, value)]))
    }

    #[test]
    fn a_value_is_unchanged_after_encoding_and_decoding() {
        let bytes = encode(&value(&sample())).expect("encodes");
        let term = Checked::whole(&bytes).expect("passes the check").decode().expect("decodes");
        assert_eq!(read_value::<Sample>(&term, "sample").expect("reads back"), sample());
    }

    #[test]
    fn an_absent_nil_or_later_value_is_no_error() {
        let read: Sample = read_value(&fields("later", atom("nil")), "sample").expect("the rest is there");
        assert_eq!((read.later, read.absent, read.ratio), (0, None, 1.0));
    }

    #[test]
    fn the_error_has_the_path_to_the_wrong_field() {
        let wrong = |key, value| read_value::<Sample>(&fields(key, value), "sample").expect_err(key).to_string();
        assert_eq!(wrong("name", atom("a")), "sample: name: invalid type: a, expected a string");
        assert_eq!(wrong("later", int(-1)), "sample: later: invalid value: integer `-1`, expected u32");
        let deep = tuple([tuple([atom("one"), text("x")]), list([])]);
        assert_eq!(wrong("pair", deep), "sample: pair: one: invalid type: string \"x\", expected i8");
        assert!(wrong("pair", tuple([atom("plain"), list([]), int(1)])).starts_with("sample: pair: invalid length 3"));
        assert!(wrong("name", binary(vec![b'a'; MAX_TEXT + 1])).contains("more than 4096 bytes"));
        assert!(wrong("bytes", list(vec![int(256); MAX_LIST + 1])).contains("more than 20000"));
        let bytes = vec![1; MAX_LIST + 1];
        assert!(wrong("bytes", Term::from(ByteList { bytes })).contains("more than 20000"));
        assert_eq!(
            read_value::<Sample>(&map([]), "sample").expect_err("nothing").to_string(),
            "sample: missing field `name`"
        );
    }
}
