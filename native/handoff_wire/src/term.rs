//! Building terms, and reading them without trusting them.
//!
//! Guarantee: a list built here arrives as that list (the encoder alone corrupts lists of small integers with a negative one);
//! a list is read in each of the three forms it can arrive in; numbers are read whether they came as small or big
//! integers, floats also as integers; text is UTF-8 and bounded.

use std::borrow::Cow;
use std::collections::HashMap;

use eetf::{Atom, BigInteger, Binary, FixInteger, Float, ImproperList, List, Map, Term, Tuple};

use crate::check;
use crate::error::WireError;

/// The longest name, release, region, environment value or reason, bytes.
pub const MAX_TEXT: usize = 4_096;

/// Checks and decodes the term at the start of `bytes`; also how many bytes it took.
///
/// # Errors
/// [`WireError::Check`] and [`WireError::Decode`].
pub fn decode(bytes: &[u8]) -> Result<(Term, usize), WireError> {
    let length = check::check(bytes)?;
    let term = Term::decode(bytes.get(..length).unwrap_or_default())?;
    Ok((term, length))
}

/// Encodes a term, with its version byte.
///
/// # Errors
/// [`WireError::Encode`] for an atom or integer that is too long.
pub fn encode(term: &Term) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    term.encode(&mut bytes)?;
    Ok(bytes)
}

/// An atom.
pub fn atom(name: &str) -> Term {
    Term::from(Atom::from(name))
}

/// `true` or `false`.
pub fn boolean(value: bool) -> Term {
    atom(if value { "true" } else { "false" })
}

/// An integer that is not negative.
pub fn uint(value: u64) -> Term {
    i32::try_from(value)
        .map_or_else(|_| Term::from(BigInteger::from(value)), |small| Term::from(FixInteger::from(small)))
}

/// An integer.
pub fn int(value: i64) -> Term {
    i32::try_from(value)
        .map_or_else(|_| Term::from(BigInteger::from(value)), |small| Term::from(FixInteger::from(small)))
}

/// A float; one that is not finite has no external form and is sent as zero.
pub fn float(value: f64) -> Term {
    Float::try_from(value).map_or_else(|_| float(0.0), Term::from)
}

/// Text, as a binary.
pub fn text(value: &str) -> Term {
    binary(value.as_bytes().to_vec())
}

/// A binary.
pub fn binary(bytes: Vec<u8>) -> Term {
    Term::from(Binary::from(bytes))
}

/// `nil` for what is not there.
pub fn optional(value: Option<Term>) -> Term {
    value.unwrap_or_else(|| atom("nil"))
}

/// A tuple.
pub fn tuple(elements: Vec<Term>) -> Term {
    Term::from(Tuple::from(elements))
}

/// A list. See the module documentation.
pub fn list(elements: Vec<Term>) -> Term {
    let small = |term: &Term| matches!(term, Term::FixInteger(FixInteger { value }) if *value < 256);
    let negative = |term: &Term| matches!(term, Term::FixInteger(FixInteger { value }) if *value < 0);
    if elements.iter().all(small) && elements.iter().any(negative) {
        Term::from(ImproperList::from((elements, Term::from(List::nil()))))
    } else {
        Term::from(List::from(elements))
    }
}

/// A map with atoms as keys.
pub fn map(pairs: impl IntoIterator<Item = (&'static str, Term)>) -> Term {
    let map: HashMap<Term, Term> = pairs.into_iter().map(|(key, value)| (atom(key), value)).collect();
    Term::from(Map::from(map))
}

fn wrong<T>(field: &'static str, takes: &'static str) -> Result<T, WireError> {
    Err(WireError::Field { field, takes })
}

/// The name of an atom.
pub fn atom_name(term: &Term) -> Option<&str> {
    match term {
        Term::Atom(atom) => Some(&atom.name),
        _ => None,
    }
}

/// The elements of a tuple.
pub fn elements(term: &Term) -> Option<&[Term]> {
    match term {
        Term::Tuple(tuple) => Some(&tuple.elements),
        _ => None,
    }
}

/// Reads an integer that is not negative.
///
/// # Errors
/// [`WireError::Field`], as for all readers here.
pub fn read_u64(term: &Term, field: &'static str) -> Result<u64, WireError> {
    let value = match term {
        Term::FixInteger(FixInteger { value }) => u64::try_from(*value).ok(),
        Term::BigInteger(BigInteger { value }) => u64::try_from(value).ok(),
        _ => None,
    };
    value.map_or_else(|| wrong(field, "an integer of 0 to 2^64-1"), Ok)
}

/// Reads an integer of 0 to 2^32-1.
///
/// # Errors
/// [`WireError::Field`].
pub fn read_u32(term: &Term, field: &'static str) -> Result<u32, WireError> {
    read_u64(term, field)
        .ok()
        .and_then(|value| u32::try_from(value).ok())
        .map_or_else(|| wrong(field, "an integer of 0 to 2^32-1"), Ok)
}

/// Reads an integer.
///
/// # Errors
/// [`WireError::Field`].
pub fn read_i64(term: &Term, field: &'static str) -> Result<i64, WireError> {
    let value = match term {
        Term::FixInteger(FixInteger { value }) => Some(i64::from(*value)),
        Term::BigInteger(BigInteger { value }) => i64::try_from(value).ok(),
        _ => None,
    };
    value.map_or_else(|| wrong(field, "an integer of -2^63 to 2^63-1"), Ok)
}

/// Reads a number.
///
/// # Errors
/// [`WireError::Field`].
#[expect(clippy::cast_precision_loss, reason = "loads, limits and ratios, not identities")]
pub fn read_f64(term: &Term, field: &'static str) -> Result<f64, WireError> {
    match term {
        Term::Float(Float { value }) => Ok(*value),
        other => read_i64(other, field).map(|value| value as f64).or_else(|_| wrong(field, "a number")),
    }
}

/// Reads a boolean.
///
/// # Errors
/// [`WireError::Field`].
pub fn read_bool(term: &Term, field: &'static str) -> Result<bool, WireError> {
    match atom_name(term) {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => wrong(field, "true or false"),
    }
}

/// Reads text.
///
/// # Errors
/// [`WireError::Field`].
pub fn read_text(term: &Term, field: &'static str) -> Result<String, WireError> {
    match term {
        Term::Binary(Binary { bytes }) if bytes.len() <= MAX_TEXT => {
            std::str::from_utf8(bytes).map(str::to_owned).or_else(|_| wrong(field, "a UTF-8 binary"))
        }
        _ => wrong(field, "a UTF-8 binary of at most 4096 bytes"),
    }
}

/// Reads the bytes of a binary.
///
/// # Errors
/// [`WireError::Field`].
pub fn read_bytes<'a>(term: &'a Term, field: &'static str) -> Result<&'a [u8], WireError> {
    match term {
        Term::Binary(Binary { bytes }) => Ok(bytes),
        _ => wrong(field, "a binary"),
    }
}

/// Reads a proper list, however it was encoded.
///
/// # Errors
/// [`WireError::Field`].
pub fn read_list<'a>(term: &'a Term, field: &'static str) -> Result<Cow<'a, [Term]>, WireError> {
    match term {
        Term::List(list) => Ok(Cow::Borrowed(&list.elements)),
        Term::ByteList(list) => Ok(Cow::Owned(list.bytes.iter().map(|byte| uint(u64::from(*byte))).collect())),
        Term::ImproperList(list) if matches!(&*list.last, Term::List(last) if last.is_nil()) => {
            Ok(Cow::Borrowed(&list.elements))
        }
        _ => wrong(field, "a list"),
    }
}

/// Reads a list of at most `most` elements, each with `read`.
///
/// # Errors
/// [`WireError::Field`], [`WireError::TooMany`], and what `read` answers.
pub fn read_each<T>(
    term: &Term,
    field: &'static str,
    most: usize,
    read: impl FnMut(&Term) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let list = read_list(term, field)?;
    if list.len() > most {
        return Err(WireError::TooMany { what: field, got: list.len(), takes: most });
    }
    list.iter().map(read).collect()
}

/// The elements of a tuple of exactly `N`.
///
/// # Errors
/// [`WireError::Field`].
pub fn read_tuple<'a, const N: usize>(term: &'a Term, field: &'static str) -> Result<&'a [Term; N], WireError> {
    elements(term)
        .and_then(|elements| <&[Term; N]>::try_from(elements).ok())
        .map_or_else(|| wrong(field, "a tuple of the documented size"), Ok)
}

/// A map with atoms as keys, being read. Keys that are not asked for are ignored: a later release may add some.
pub struct Fields<'a>(&'a HashMap<Term, Term>);

impl<'a> Fields<'a> {
    /// The map in `term`.
    ///
    /// # Errors
    /// [`WireError::Field`].
    pub fn of(term: &'a Term, field: &'static str) -> Result<Self, WireError> {
        match term {
            Term::Map(map) => Ok(Fields(&map.map)),
            _ => wrong(field, "a map"),
        }
    }

    /// The value of a key, if it is there and not `nil`.
    pub fn get(&self, key: &'static str) -> Option<&'a Term> {
        self.0.get(&atom(key)).filter(|value| atom_name(value) != Some("nil"))
    }

    /// Reads the value of a key that must be there.
    ///
    /// # Errors
    /// [`WireError::Field`], and what `read` answers.
    pub fn need<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a Term, &'static str) -> Result<T, WireError>,
    ) -> Result<T, WireError> {
        self.get(key).map_or_else(|| wrong(key, "a value"), |value| read(value, key))
    }

    /// Reads the value of a key that may be missing or `nil`.
    ///
    /// # Errors
    /// What `read` answers.
    pub fn maybe<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a Term, &'static str) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        self.get(key).map(|value| read(value, key)).transpose()
    }
}

/// Reads one of a fixed set of atoms.
///
/// # Errors
/// [`WireError::Field`].
pub fn read_choice<T: Copy>(term: &Term, field: &'static str, choices: &[(&str, T)]) -> Result<T, WireError> {
    atom_name(term)
        .and_then(|name| choices.iter().find(|(choice, _)| *choice == name))
        .map_or_else(|| wrong(field, "one of the documented atoms"), |(_, value)| Ok(*value))
}

/// The atom of a value in a fixed set.
pub fn choice<T: PartialEq>(value: &T, choices: &[(&str, T)]) -> Term {
    atom(choices.iter().find(|(_, known)| known == value).map_or("unknown", |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_small_integers_with_a_negative_one_survives() {
        let sent = list(vec![int(-1), int(-2), int(7)]);
        let (back, _) = decode(&encode(&sent).expect("encodes")).expect("decodes");
        let read = read_each(&back, "x", 10, |term| read_i64(term, "x")).expect("a list");
        assert_eq!(read, [-1, -2, 7]);
    }

    #[test]
    fn a_list_that_arrives_as_a_string_is_a_list() {
        let (back, _) = decode(&encode(&list(vec![uint(1), uint(255)])).expect("encodes")).expect("decodes");
        assert!(matches!(back, Term::ByteList(_)), "that is how the format writes it");
        assert_eq!(read_each(&back, "x", 10, |term| read_u64(term, "x")).expect("a list"), [1, 255]);
    }

    #[test]
    fn integers_are_read_across_both_encodings() {
        for value in [0, 255, 256, i64::from(i32::MAX), i64::from(i32::MAX) + 1, -1, i64::MIN, i64::MAX] {
            let (back, _) = decode(&encode(&int(value)).expect("encodes")).expect("decodes");
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
