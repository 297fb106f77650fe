//! Terms from values.
//!
//! Guarantee: a list built here is decoded as the same list. (The encoder alone corrupts lists of small
//! integers with a negative one.)

use std::collections::HashMap;

use eetf::{Atom, BigInteger, Binary, FixInteger, Float, ImproperList, List, Map, Term, Tuple};

use crate::error::Error;

/// The bytes of a term, with its version byte. An atom or an integer may be too long.
pub fn encode(term: &Term) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    term.encode(&mut bytes)?;
    Ok(bytes)
}

pub fn atom(name: &str) -> Term {
    Term::from(Atom::from(name))
}

pub fn boolean(value: bool) -> Term {
    atom(if value { "true" } else { "false" })
}

pub fn uint(value: u64) -> Term {
    i32::try_from(value)
        .map_or_else(|_| Term::from(BigInteger::from(value)), |small| Term::from(FixInteger::from(small)))
}

pub fn int(value: i64) -> Term {
    i32::try_from(value)
        .map_or_else(|_| Term::from(BigInteger::from(value)), |small| Term::from(FixInteger::from(small)))
}

/// A float. The format has no infinity and no NaN: these are sent as zero.
pub fn float(value: f64) -> Term {
    Float::try_from(value).map_or_else(|_| float(0.0), Term::from)
}

pub fn text(value: &str) -> Term {
    binary(value)
}

pub fn binary(bytes: impl Into<Vec<u8>>) -> Term {
    Term::from(Binary::from(bytes.into()))
}

/// `nil` for `None`.
pub fn optional(value: Option<Term>) -> Term {
    value.unwrap_or_else(|| atom("nil"))
}

pub fn tuple(elements: impl IntoIterator<Item = Term>) -> Term {
    Term::from(Tuple::from(elements.into_iter().collect::<Vec<_>>()))
}

/// A proper list. The encoder writes a list of integers below 256 as bytes, also negative ones. So a list with a
/// negative integer is built as an improper list that ends in `[]`, which is the same list.
pub fn list(elements: impl IntoIterator<Item = Term>) -> Term {
    let elements: Vec<Term> = elements.into_iter().collect();
    let small = |term: &Term| matches!(term, Term::FixInteger(FixInteger { value }) if *value < 256);
    let negative = |term: &Term| matches!(term, Term::FixInteger(FixInteger { value }) if *value < 0);
    if elements.iter().all(small) && elements.iter().any(negative) {
        Term::from(ImproperList::from((elements, Term::from(List::nil()))))
    } else {
        Term::from(List::from(elements))
    }
}

pub fn map<'k>(pairs: impl IntoIterator<Item = (&'k str, Term)>) -> Term {
    let map: HashMap<Term, Term> = pairs.into_iter().map(|(key, value)| (atom(key), value)).collect();
    Term::from(Map::from(map))
}

/// The atom of a value in a fixed set; `unknown` for a value that is not in it.
pub fn choice<T: PartialEq>(value: &T, choices: &[(&str, T)]) -> Term {
    atom(choices.iter().find(|(_, known)| known == value).map_or("unknown", |(name, _)| name))
}
