//! Erlang terms of the control connections: etf's constructors, and readers that say what they found instead.

use etf::Term;
pub use etf::{atom, binary as bytes, float, list, map, text, tuple, uint as int};

use crate::{Error, Result};

fn unexpected(wanted: &str, found: &Term) -> Error {
    let mut shown = found.to_string();
    if shown.chars().count() > 200 {
        shown = shown.chars().take(200).chain("...".chars()).collect();
    }
    Error::protocol(format!("expected {wanted}, got {shown}"))
}

/// The name of an atom.
pub fn as_atom(term: &Term) -> Result<&str> {
    etf::atom_name(term).ok_or_else(|| unexpected("an atom", term))
}

/// A non-negative integer.
pub fn as_u64(term: &Term) -> Result<u64> {
    etf::read_u64(term, "").map_err(|_| unexpected("a non-negative integer", term))
}

/// A non-negative integer that fits in 32 bits.
pub fn as_u32(term: &Term) -> Result<u32> {
    etf::read_u32(term, "").map_err(|_| unexpected("a 32-bit integer", term))
}

/// The bytes of a binary.
pub fn as_bytes(term: &Term) -> Result<&[u8]> {
    etf::read_bytes(term, "").map_err(|_| unexpected("a binary", term))
}

/// A binary, as text of any length; bytes that are not UTF-8 are replaced.
pub fn as_text(term: &Term) -> Result<String> {
    as_bytes(term).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The elements of a tuple.
pub fn as_tuple(term: &Term) -> Result<&[Term]> {
    etf::elements(term).ok_or_else(|| unexpected("a tuple", term))
}

/// The elements of a tuple of `N`.
pub fn as_tuple_of<const N: usize>(term: &Term) -> Result<&[Term; N]> {
    as_tuple(term)?.try_into().map_err(|_| unexpected(&format!("a tuple of {N}"), term))
}

/// The elements of a proper list.
pub fn as_list(term: &Term) -> Result<Vec<Term>> {
    etf::read_list(term, "").map(Into::into).map_err(|_| unexpected("a list", term))
}

/// A list read element by element.
pub fn as_list_of<T>(term: &Term, read: impl Fn(&Term) -> Result<T>) -> Result<Vec<T>> {
    as_list(term)?.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
