//! Small constructors and readers for Erlang terms. A reader that does not find what it expects says what it found.

use eetf::{Atom, BigInteger, Binary, Float, List, Term, Tuple};

use crate::{Error, Result};

/// The atom `name`.
pub fn atom(name: &str) -> Term {
    Atom::from(name).into()
}

/// An integer.
pub fn int(value: u64) -> Term {
    BigInteger::from(value).into()
}

/// A finite float.
pub fn float(value: f64) -> Term {
    Float { value }.into()
}

/// A binary.
pub fn bytes(bytes: impl Into<Vec<u8>>) -> Term {
    Binary::from(bytes.into()).into()
}

/// A binary with the bytes of `text`.
pub fn text(text: &str) -> Term {
    Binary::from(text.as_bytes()).into()
}

/// A tuple.
pub fn tuple(elements: impl Into<Vec<Term>>) -> Term {
    Tuple::from(elements.into()).into()
}

/// A proper list.
pub fn list(elements: impl Into<Vec<Term>>) -> Term {
    List::from(elements.into()).into()
}

/// A map with atoms as keys.
pub fn map<const N: usize>(entries: [(&str, Term); N]) -> Term {
    eetf::Map::from(entries.map(|(key, value)| (atom(key), value))).into()
}

fn unexpected(wanted: &str, found: &Term) -> Error {
    let mut shown = found.to_string();
    if shown.chars().count() > 200 {
        shown = shown.chars().take(200).chain("...".chars()).collect();
    }
    Error::protocol(format!("expected {wanted}, got {shown}"))
}

/// The name of an atom.
pub fn as_atom(term: &Term) -> Result<&str> {
    match term {
        Term::Atom(atom) => Ok(&atom.name),
        other => Err(unexpected("an atom", other)),
    }
}

/// A non-negative integer.
pub fn as_u64(term: &Term) -> Result<u64> {
    match term {
        Term::FixInteger(small) => u64::try_from(small.value).ok(),
        Term::BigInteger(big) => u64::try_from(&big.value).ok(),
        _ => None,
    }
    .ok_or_else(|| unexpected("a non-negative integer", term))
}

/// A non-negative integer that fits in 32 bits.
pub fn as_u32(term: &Term) -> Result<u32> {
    u32::try_from(as_u64(term)?).map_err(|_| unexpected("a 32-bit integer", term))
}

/// The bytes of a binary.
pub fn as_bytes(term: &Term) -> Result<&[u8]> {
    match term {
        Term::Binary(binary) => Ok(&binary.bytes),
        other => Err(unexpected("a binary", other)),
    }
}

/// A binary, as text.
pub fn as_text(term: &Term) -> Result<String> {
    match term {
        Term::Binary(binary) => Ok(String::from_utf8_lossy(&binary.bytes).into_owned()),
        other => Err(unexpected("a binary", other)),
    }
}

/// The elements of a tuple.
pub fn as_tuple(term: &Term) -> Result<&[Term]> {
    match term {
        Term::Tuple(tuple) => Ok(&tuple.elements),
        other => Err(unexpected("a tuple", other)),
    }
}

/// The elements of a tuple of `N`.
pub fn as_tuple_of<const N: usize>(term: &Term) -> Result<&[Term; N]> {
    as_tuple(term)?.try_into().map_err(|_| unexpected(&format!("a tuple of {N}"), term))
}

/// The elements of a proper list. The BEAM writes a list of small integers as bytes; that is one, too.
pub fn as_list(term: &Term) -> Result<Vec<Term>> {
    match term {
        Term::List(list) => Ok(list.elements.clone()),
        Term::ByteList(bytes) => Ok(bytes.bytes.iter().map(|&byte| int(byte.into())).collect()),
        other => Err(unexpected("a list", other)),
    }
}

/// A list read element by element.
pub fn as_list_of<T>(term: &Term, read: impl Fn(&Term) -> Result<T>) -> Result<Vec<T>> {
    as_list(term)?.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(term: &Term) -> Term {
        let mut bytes = Vec::new();
        term.encode(&mut bytes).unwrap();
        Term::decode(bytes.as_slice()).unwrap()
    }

    #[test]
    fn integers_of_every_size_survive() {
        for value in [0, 255, 256, 1 << 31, 1_760_000_000_000_000, u64::MAX] {
            assert_eq!(as_u64(&round_trip(&int(value))).unwrap(), value);
        }
    }

    #[test]
    fn a_list_of_small_integers_written_as_bytes_is_a_list() {
        // term_to_binary([1, 2, 250])
        let bytes = [131, 107, 0, 3, 1, 2, 250];
        let term = Term::decode(bytes.as_slice()).unwrap();
        assert_eq!(as_list_of(&term, as_u64).unwrap(), [1, 2, 250]);
    }

    #[test]
    fn a_reader_says_what_it_found_instead() {
        let message = as_u64(&atom("many")).unwrap_err().to_string();
        assert!(message.contains("expected a non-negative integer, got 'many'"), "{message}");
        let message = as_tuple_of::<2>(&tuple([int(1)])).unwrap_err().to_string();
        assert!(message.contains("expected a tuple of 2, got {1}"), "{message}");
    }

    #[test]
    fn a_long_term_is_cut_in_the_message() {
        let message = as_atom(&text(&"x".repeat(10_000))).unwrap_err().to_string();
        assert!(message.len() < 400, "{} characters", message.len());
    }
}
