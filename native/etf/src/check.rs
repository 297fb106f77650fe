//! Checks that bytes may be decoded, before anything is allocated for them.
//!
//! Guarantee: the check allocates nothing, does not recurse, and takes time linear in the bytes it looks at.
//! A term that passes has only tags on the allow-list, only lengths that fit the bytes, at most [`MAX_DEPTH`]
//! nested containers, at most [`MAX_TERMS`] terms, and no integer above [`MAX_BIGNUM`] bytes.

/// Deeper than any message of this protocol or of OTP's kernel processes, and far below the depth at which a
/// recursive decoder would overflow a thread's stack.
pub const MAX_DEPTH: usize = 64;
/// Enough for ten thousand events in one message. A decoded term takes about 60 bytes, so a decoded message
/// takes less than 16 MB.
pub const MAX_TERMS: usize = 250_000;
/// Longest big integer, bytes.
pub const MAX_BIGNUM: usize = 4_096;
/// Words in a reference (OTP 24 and later).
const MAX_REFERENCE_WORDS: usize = 5;
/// An atom has at most 255 characters of at most 4 bytes.
const MAX_ATOM: usize = 1_020;

/// The version byte in front of every term.
const VERSION: u8 = 131;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The bytes end before the term does, or a length exceeds the remaining bytes.
    #[error("the term is cut short")]
    Truncated,
    #[error("{bytes} bytes after the term")]
    Trailing { bytes: usize },
    /// The bytes are not in the external term format.
    #[error("version byte {got}, expected 131")]
    Version { got: u8 },
    /// A tag that is unknown or not accepted: compressed terms, local funs, cache references.
    #[error("tag {tag} is not accepted")]
    Tag { tag: u8 },
    #[error("nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("more than {MAX_TERMS} terms")]
    TooManyTerms,
    /// A bit string whose last byte has no bits or more than eight.
    #[error("a bit string with an impossible last byte")]
    Bits,
    /// Longer than the format allows, or an integer above [`MAX_BIGNUM`].
    #[error("{what} of length {got}")]
    TooLong { what: &'static str, got: usize },
}

impl CheckError {
    /// True for bytes that no conforming node sends; false for a valid term that is not accepted here.
    pub fn is_malformed(&self) -> bool {
        match self {
            CheckError::Truncated | CheckError::Trailing { .. } | CheckError::Version { .. } | CheckError::Bits => true,
            CheckError::Tag { .. } | CheckError::TooDeep | CheckError::TooManyTerms | CheckError::TooLong { .. } => {
                false
            }
        }
    }
}

/// The length of the term at the start of `bytes`, if the term passes. Later bytes are not checked.
pub(crate) fn check(bytes: &[u8]) -> Result<usize, CheckError> {
    let mut cursor = Cursor { bytes, at: 0 };
    match cursor.byte()? {
        VERSION => {}
        got => return Err(CheckError::Version { got }),
    }
    // For each open container, how many terms are missing.
    let mut open = [0_usize; MAX_DEPTH + 1];
    let mut depth = 0;
    open[0] = 1;
    let mut terms = 0;
    loop {
        while open[depth] == 0 {
            if depth == 0 {
                return Ok(cursor.at);
            }
            depth -= 1;
        }
        open[depth] -= 1;
        terms += 1;
        if terms > MAX_TERMS {
            return Err(CheckError::TooManyTerms);
        }
        let children = cursor.term()?;
        if children > 0 {
            if depth == MAX_DEPTH {
                return Err(CheckError::TooDeep);
            }
            depth += 1;
            open[depth] = children;
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// Skips the bytes of one term without its children. Returns how many children follow.
    fn term(&mut self) -> Result<usize, CheckError> {
        match self.byte()? {
            // SMALL_TUPLE, LARGE_TUPLE, LIST with its tail, MAP
            104 => self.byte().map(usize::from),
            105 => self.u32(),
            108 => self.u32().map(|length| length.saturating_add(1)),
            116 => self.u32().map(|pairs| pairs.saturating_mul(2)),
            tag => self.leaf(tag).map(|()| 0),
        }
    }

    /// Skips a term that has no children, behind its tag.
    fn leaf(&mut self, tag: u8) -> Result<(), CheckError> {
        match tag {
            // SMALL_INTEGER, INTEGER, NEW_FLOAT, NIL
            97 => self.skip(1),
            98 => self.skip(4),
            70 => self.skip(8),
            106 => Ok(()),
            // ATOM and SMALL_ATOM (Latin-1, as VMs before OTP 26 store terms), ATOM_UTF8, SMALL_ATOM_UTF8
            100 | 115 | 118 | 119 => self.atom_after(tag),
            // STRING, BINARY
            107 => {
                let length = self.u16()?;
                self.skip(length)
            }
            109 => {
                let length = self.u32()?;
                self.skip(length)
            }
            // BIT_BINARY: the decoder shifts by 8 less the bits of the last byte.
            77 => {
                let length = self.u32()?;
                match self.byte()? {
                    1..=8 if length > 0 => self.skip(length),
                    _ => Err(CheckError::Bits),
                }
            }
            // SMALL_BIG, LARGE_BIG
            110 => {
                let length = usize::from(self.byte()?);
                self.skip(1 + length)
            }
            111 => match self.u32()? {
                length if length > MAX_BIGNUM => Err(CheckError::TooLong { what: "integer", got: length }),
                length => self.skip(1 + length),
            },
            // NEW_PID, NEW_PORT, V4_PORT, NEWER_REFERENCE
            88 | 120 => self.atom().and_then(|()| self.skip(12)),
            89 => self.atom().and_then(|()| self.skip(8)),
            90 => {
                let words = self.u16()?;
                if words > MAX_REFERENCE_WORDS {
                    return Err(CheckError::TooLong { what: "reference", got: words });
                }
                self.atom()?;
                self.skip(4 + 4 * words)
            }
            // EXPORT: module, function, arity
            113 => {
                self.atom()?;
                self.atom()?;
                match self.byte()? {
                    97 => self.skip(1),
                    tag => Err(CheckError::Tag { tag }),
                }
            }
            tag => Err(CheckError::Tag { tag }),
        }
    }

    fn atom(&mut self) -> Result<(), CheckError> {
        let tag = self.byte()?;
        self.atom_after(tag)
    }

    fn atom_after(&mut self, tag: u8) -> Result<(), CheckError> {
        let length = match tag {
            100 | 118 => self.u16()?,
            115 | 119 => usize::from(self.byte()?),
            tag => return Err(CheckError::Tag { tag }),
        };
        if length > MAX_ATOM {
            return Err(CheckError::TooLong { what: "atom", got: length });
        }
        self.skip(length)
    }

    fn skip(&mut self, count: usize) -> Result<(), CheckError> {
        match self.at.checked_add(count) {
            Some(end) if end <= self.bytes.len() => {
                self.at = end;
                Ok(())
            }
            _ => Err(CheckError::Truncated),
        }
    }

    fn byte(&mut self) -> Result<u8, CheckError> {
        let byte = *self.bytes.get(self.at).ok_or(CheckError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<usize, CheckError> {
        Ok(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    fn u32(&mut self) -> Result<usize, CheckError> {
        Ok(self.u16()? << 16 | self.u16()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested_tuples(depth: usize) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend([104, 1].repeat(depth));
        bytes.push(106);
        bytes
    }

    #[test]
    fn a_plain_term_passes_and_later_bytes_are_ignored() {
        assert_eq!(check(&[131, 104, 2, 97, 1, 106, 42, 42]), Ok(6));
    }

    #[test]
    fn nesting_up_to_the_limit_passes_and_deeper_nesting_is_refused() {
        assert!(check(&nested_tuples(MAX_DEPTH)).is_ok());
        assert_eq!(check(&nested_tuples(MAX_DEPTH + 1)), Err(CheckError::TooDeep));
        assert_eq!(check(&nested_tuples(100_000)), Err(CheckError::TooDeep));
    }

    #[test]
    fn a_length_above_the_remaining_bytes_is_refused_for_every_tag() {
        for tag in [105, 108, 109, 116] {
            assert_eq!(check(&[131, tag, 255, 255, 255, 255]), Err(CheckError::Truncated), "tag {tag}");
        }
        assert_eq!(check(&[131, 107, 255, 255, 1]), Err(CheckError::Truncated));
        assert_eq!(check(&[131, 77, 255, 255, 255, 255, 8, 1]), Err(CheckError::Truncated));
        assert_eq!(check(&[131, 104, 2, 97]), Err(CheckError::Truncated));
        assert_eq!(check(&[]), Err(CheckError::Truncated));
    }

    #[test]
    fn atoms_in_every_form_pass_if_their_bytes_are_complete() {
        for atom in
            [&[100, 0, 2, b'o', b'k'][..], &[115, 2, b'o', b'k'], &[118, 0, 2, b'o', b'k'], &[119, 2, b'o', b'k']]
        {
            let bytes = [&[VERSION], atom].concat();
            assert_eq!(check(&bytes), Ok(bytes.len()));
            assert_eq!(check(&bytes[..bytes.len() - 1]), Err(CheckError::Truncated));
        }
    }

    #[test]
    fn compressed_terms_local_funs_and_tags_that_panic_are_refused() {
        for tag in [80, 112, 117, 68, 82, 69, 99, 101, 102, 103, 114, 0, 255] {
            assert_eq!(check(&[131, tag, 0, 0, 0, 0]), Err(CheckError::Tag { tag }));
        }
    }

    #[test]
    fn a_large_integer_a_long_reference_a_long_atom_and_invalid_tail_bits_are_refused() {
        let mut big = vec![131, 111, 0, 0, 16, 1, 0];
        big.extend(vec![1; 4_097]);
        assert_eq!(check(&big), Err(CheckError::TooLong { what: "integer", got: 4_097 }));
        assert_eq!(
            check(&[131, 90, 0, 6, 119, 1, 97, 0, 0, 0, 0]),
            Err(CheckError::TooLong { what: "reference", got: 6 })
        );
        let atom = |length: u16| [&[131, 118], &length.to_be_bytes()[..], &vec![b'a'; usize::from(length)]].concat();
        assert_eq!(check(&atom(1_020)), Ok(1_024));
        assert_eq!(check(&atom(1_021)), Err(CheckError::TooLong { what: "atom", got: 1_021 }));
        assert_eq!(check(&[131, 77, 0, 0, 0, 0, 8]), Err(CheckError::Bits));
        assert_eq!(check(&[131, 77, 0, 0, 0, 1, 0, 1]), Err(CheckError::Bits));
        assert_eq!(check(&[131, 77, 0, 0, 0, 1, 9, 1]), Err(CheckError::Bits));
    }

    #[test]
    fn more_terms_than_the_limit_are_refused() {
        let count = u32::try_from(MAX_TERMS).expect("fits");
        let mut bytes = vec![131, 105];
        bytes.extend(count.to_be_bytes());
        bytes.extend(vec![106; MAX_TERMS]);
        assert_eq!(check(&bytes), Err(CheckError::TooManyTerms));
    }

    #[test]
    fn another_version_byte_is_refused() {
        assert_eq!(check(&[130, 106]), Err(CheckError::Version { got: 130 }));
    }
}
