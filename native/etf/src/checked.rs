//! Bytes that passed the check.

use std::borrow::Cow;

use eetf::Term;

use crate::check::{CheckError, check};
use crate::error::Error;

/// The bytes of one term that passed the check, version byte included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<'a>(Cow<'a, [u8]>);

impl<'a> Checked<'a> {
    /// The term at the start of `bytes`, and the remaining bytes, which are not checked.
    pub fn first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), CheckError> {
        let (term, rest) = bytes.split_at_checked(check(bytes)?).ok_or(CheckError::Truncated)?;
        Ok((Checked(Cow::Borrowed(term)), rest))
    }

    /// The term in `bytes`. Nothing may follow the term.
    pub fn whole(bytes: &'a [u8]) -> Result<Self, CheckError> {
        match Checked::first(bytes)? {
            (term, []) => Ok(term),
            (_, rest) => Err(CheckError::Trailing { bytes: rest.len() }),
        }
    }

    /// Decodes the term. An atom that is not UTF-8 and a float that is not finite are errors.
    pub fn decode(&self) -> Result<Term, Error> {
        Ok(Term::decode(self.as_bytes())?)
    }

    /// The bytes of the term, from the version byte on.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A copy that outlives the buffer the term was read from.
    pub fn into_owned(self) -> Checked<'static> {
        Checked(Cow::Owned(self.0.into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_a_term_are_returned_or_refused() {
        let (term, rest) = Checked::first(&[131, 97, 7, 42, 42]).expect("a term");
        assert_eq!((term.as_bytes(), rest), (&[131, 97, 7][..], &[42, 42][..]));
        assert_eq!(Checked::whole(&[131, 97, 7]).as_ref(), Ok(&term));
        assert_eq!(Checked::whole(&[131, 97, 7, 42]), Err(CheckError::Trailing { bytes: 1 }));
    }

    #[test]
    fn an_atom_that_is_not_utf8_passes_the_check_and_is_an_error() {
        let term = Checked::whole(&[131, 119, 1, 0xff]).expect("the check looks at lengths only");
        assert!(matches!(term.decode(), Err(Error::Decode { .. })));
    }
}
