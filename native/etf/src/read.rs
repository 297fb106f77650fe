//! Values from terms, without trusting them.
//!
//! Guarantee: lists are read in all three encodings, integers as small and as big ones, floats also from integers.
//! Text is UTF-8 and bounded. For anything else a reader returns [`Error::Field`] with the name of the field and
//! what it takes.

use std::borrow::Cow;
use std::collections::HashMap;

use eetf::{BigInteger, Binary, FixInteger, Float, Pid, Reference, Term};

use crate::error::Error;
use crate::write::{atom, uint};

/// The longest text, bytes.
pub const MAX_TEXT: usize = 4_096;

fn wrong<T>(field: &'static str, takes: &'static str) -> Result<T, Error> {
    Err(Error::Field { field, takes })
}

pub fn atom_name(term: &Term) -> Option<&str> {
    match term {
        Term::Atom(atom) => Some(&atom.name),
        _ => None,
    }
}

pub fn elements(term: &Term) -> Option<&[Term]> {
    match term {
        Term::Tuple(tuple) => Some(&tuple.elements),
        _ => None,
    }
}

pub fn read_u64(term: &Term, field: &'static str) -> Result<u64, Error> {
    let value = match term {
        Term::FixInteger(FixInteger { value }) => u64::try_from(*value).ok(),
        Term::BigInteger(BigInteger { value }) => u64::try_from(value).ok(),
        _ => None,
    };
    value.map_or_else(|| wrong(field, "an integer of 0 to 2^64-1"), Ok)
}

pub fn read_u32(term: &Term, field: &'static str) -> Result<u32, Error> {
    read_u64(term, field)
        .ok()
        .and_then(|value| u32::try_from(value).ok())
        .map_or_else(|| wrong(field, "an integer of 0 to 2^32-1"), Ok)
}

pub fn read_i64(term: &Term, field: &'static str) -> Result<i64, Error> {
    let value = match term {
        Term::FixInteger(FixInteger { value }) => Some(i64::from(*value)),
        Term::BigInteger(BigInteger { value }) => i64::try_from(value).ok(),
        _ => None,
    };
    value.map_or_else(|| wrong(field, "an integer of -2^63 to 2^63-1"), Ok)
}

/// A float or an integer.
#[expect(clippy::cast_precision_loss, reason = "loads, limits and ratios, not identities")]
pub fn read_f64(term: &Term, field: &'static str) -> Result<f64, Error> {
    match term {
        Term::Float(Float { value }) => Ok(*value),
        other => read_i64(other, field).map(|value| value as f64).or_else(|_| wrong(field, "a number")),
    }
}

pub fn read_bool(term: &Term, field: &'static str) -> Result<bool, Error> {
    match atom_name(term) {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => wrong(field, "true or false"),
    }
}

/// The text of a binary of at most [`MAX_TEXT`] bytes.
pub fn read_text(term: &Term, field: &'static str) -> Result<String, Error> {
    match term {
        Term::Binary(Binary { bytes }) if bytes.len() <= MAX_TEXT => {
            std::str::from_utf8(bytes).map(str::to_owned).or_else(|_| wrong(field, "a UTF-8 binary"))
        }
        _ => wrong(field, "a UTF-8 binary of at most 4096 bytes"),
    }
}

pub fn read_bytes<'a>(term: &'a Term, field: &'static str) -> Result<&'a [u8], Error> {
    match term {
        Term::Binary(Binary { bytes }) => Ok(bytes),
        _ => wrong(field, "a binary"),
    }
}

/// A proper list, however it was encoded.
pub fn read_list<'a>(term: &'a Term, field: &'static str) -> Result<Cow<'a, [Term]>, Error> {
    match term {
        Term::List(list) => Ok(Cow::Borrowed(&list.elements)),
        Term::ByteList(list) => Ok(Cow::Owned(list.bytes.iter().map(|byte| uint(u64::from(*byte))).collect())),
        Term::ImproperList(list) if matches!(&*list.last, Term::List(last) if last.is_nil()) => {
            Ok(Cow::Borrowed(&list.elements))
        }
        _ => wrong(field, "a list"),
    }
}

/// A list of at most `most` elements, each read with `read`; [`Error::TooMany`] for a longer one.
pub fn read_each<T>(
    term: &Term,
    field: &'static str,
    most: usize,
    read: impl FnMut(&Term) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let list = read_list(term, field)?;
    if list.len() > most {
        return Err(Error::TooMany { what: field, got: list.len(), takes: most });
    }
    list.iter().map(read).collect()
}

pub fn read_tuple<'a, const N: usize>(term: &'a Term, field: &'static str) -> Result<&'a [Term; N], Error> {
    elements(term)
        .and_then(|elements| <&[Term; N]>::try_from(elements).ok())
        .map_or_else(|| wrong(field, "a tuple of the documented size"), Ok)
}

pub fn pid(term: &Term) -> Option<&Pid> {
    match term {
        Term::Pid(pid) => Some(pid),
        _ => None,
    }
}

pub fn read_pid(term: &Term, field: &'static str) -> Result<Pid, Error> {
    pid(term).map_or_else(|| wrong(field, "a pid"), |pid| Ok(pid.clone()))
}

pub fn reference(term: &Term) -> Option<&Reference> {
    match term {
        Term::Reference(reference) => Some(reference),
        _ => None,
    }
}

/// Reads a map with atoms as keys. Unknown keys are ignored, because a later release may add some.
pub struct Fields<'a>(&'a HashMap<Term, Term>);

impl<'a> Fields<'a> {
    pub fn of(term: &'a Term, field: &'static str) -> Result<Self, Error> {
        match term {
            Term::Map(map) => Ok(Fields(&map.map)),
            _ => wrong(field, "a map"),
        }
    }

    /// The value of a key, if it is there and not `nil`.
    pub fn get(&self, key: &'static str) -> Option<&'a Term> {
        self.0.get(&atom(key)).filter(|value| atom_name(value) != Some("nil"))
    }

    pub fn need<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a Term, &'static str) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.get(key).map_or_else(|| wrong(key, "a value"), |value| read(value, key))
    }

    pub fn maybe<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a Term, &'static str) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.get(key).map(|value| read(value, key)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checked::Checked;
    use crate::write::{binary, encode, int, list, text};

    fn round_trip(term: &Term) -> Term {
        let bytes = encode(term).expect("encodes");
        Checked::whole(&bytes).expect("passes the check").decode().expect("decodes")
    }

    #[test]
    fn a_list_of_small_integers_with_a_negative_one_survives() {
        let sent = list([int(-1), int(-2), int(7)]);
        let back = round_trip(&sent);
        let read = read_each(&back, "x", 10, |term| read_i64(term, "x")).expect("a list");
        assert_eq!(read, [-1, -2, 7]);
    }

    #[test]
    fn a_list_that_arrives_as_a_string_is_a_list() {
        let back = round_trip(&list([uint(1), uint(255)]));
        assert!(matches!(back, Term::ByteList(_)), "that is how the format writes it");
        assert_eq!(read_each(&back, "x", 10, |term| read_u64(term, "x")).expect("a list"), [1, 255]);
    }

    #[test]
    fn integers_are_read_across_both_encodings() {
        for value in [0, 255, 256, i64::from(i32::MAX), i64::from(i32::MAX) + 1, -1, i64::MIN, i64::MAX] {
            let back = round_trip(&int(value));
            assert_eq!(read_i64(&back, "x").expect("an integer"), value);
        }
        assert!(read_u64(&int(-1), "x").is_err());
        assert!(read_u32(&uint(1 << 32), "x").is_err());
    }

    #[test]
    fn text_that_is_too_long_or_not_utf8_is_refused() {
        assert!(read_text(&binary(vec![0xff]), "x").is_err());
        assert!(read_text(&binary(vec![b'a'; MAX_TEXT + 1]), "x").is_err());
        assert_eq!(read_text(&text("zürich"), "x").expect("text"), "zürich");
    }
}
