//! Strings: found by their closing quote, copied only when they have escapes.

use std::ops::Range;

use super::{Parser, Text};
use crate::{ReadError, scan};

/// The character that each letter after a backslash stands for; 0 when the letter is not enough, or no
/// escape.
static LETTERS: [u8; 256] = {
    let mut table = [0; 256];
    let pairs = *b"\"\"\\\\//n\nt\tr\rb\x08f\x0c";
    let mut at = 0;
    while at < pairs.len() {
        table[pairs[at] as usize] = pairs[at + 1];
        at += 2;
    }
    table
};

impl<'i> Parser<'i> {
    /// The string whose first quote is at `quote`, and where it ends.
    #[inline(always)]
    pub(super) fn string(&mut self, quote: usize) -> Result<(Text<'_>, usize), ReadError> {
        let bytes = self.input.as_bytes();
        let start = quote + 1;
        let end = start + scan::find_special(&bytes[start..]);
        if bytes.get(end) == Some(&b'"') {
            return Ok((Text::Verbatim { at: start, text: &bytes[start..end] }, end + 1));
        }
        let end = self.unescape(start, end)?;
        Ok((Text::Unescaped(self.unescaped.written()), end))
    }

    /// Reads the string that starts at `start` and has its first special byte at `at` into the buffer; where it ends.
    fn unescape(&mut self, start: usize, mut at: usize) -> Result<usize, ReadError> {
        self.unescaped.truncate(0);
        self.put(start..at)?;
        loop {
            at = self.blocks(at)?;
            let start = at;
            at += scan::find_special(&self.input.as_bytes()[start..]);
            self.put(start..at)?;
            match self.input.as_bytes().get(at) {
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => at = self.escape(at)?,
                _ => return Err(self.unexpected(at)),
            }
        }
    }

    /// Continues in large steps as far as possible: to the end of the string, or to an escape of more than a
    /// letter.
    #[inline]
    fn blocks(&mut self, mut at: usize) -> Result<usize, ReadError> {
        loop {
            let room = self.unescaped.room(scan::BLOCK_ROOM)?;
            let blocks = scan::copy_unescaped(&self.input.as_bytes()[at..], room, &LETTERS);
            self.unescaped.advance(blocks.written);
            at += blocks.read;
            // The step ended because the buffer is full, so the buffer grows.
            if self.unescaped.left() >= scan::BLOCK_ROOM {
                return Ok(at);
            }
        }
    }

    /// A part of the input.
    #[inline]
    fn put(&mut self, range: Range<usize>) -> Result<(), ReadError> {
        self.unescaped.reserve(range.len())?;
        self.unescaped.put(&self.input.as_bytes()[range]);
        Ok(())
    }

    fn character(&mut self, character: char) -> Result<(), ReadError> {
        self.unescaped.reserve(4)?;
        self.unescaped.put(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    /// The escape whose backslash is at `at`; where it ends.
    fn escape(&mut self, at: usize) -> Result<usize, ReadError> {
        let letter = *self.input.as_bytes().get(at + 1).ok_or(ReadError::UnexpectedEnd)?;
        match LETTERS[usize::from(letter)] {
            0 if letter == b'u' => self.unicode_escape(at),
            0 => Err(ReadError::UnexpectedByte { at: at + 1, byte: letter }),
            byte => {
                self.character(char::from(byte))?;
                Ok(at + 2)
            }
        }
    }

    /// `\uXXXX`, or two of them that form one character.
    fn unicode_escape(&mut self, at: usize) -> Result<usize, ReadError> {
        let bad = ReadError::BadEscape { at };
        let first = self.code_unit(at)?.ok_or(bad)?;
        let (code, len) = match first {
            0xd800..0xdc00 => {
                let low = self.code_unit(at + 6)?.filter(|unit| (0xdc00..0xe000).contains(unit)).ok_or(bad)?;
                (0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00), 12)
            }
            code => (code, 6),
        };
        self.character(char::from_u32(code).ok_or(bad)?)?;
        Ok(at + len)
    }

    /// The value of the `\uXXXX` at `at`; `None` when it is not such an escape.
    fn code_unit(&self, at: usize) -> Result<Option<u32>, ReadError> {
        let Some([backslash, letter, digits @ ..]) = self.input.as_bytes().get(at..at + 6) else {
            return Err(ReadError::UnexpectedEnd);
        };
        let digits = digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?));
        Ok(digits.filter(|_| (*backslash, *letter) == (b'\\', b'u')))
    }
}
