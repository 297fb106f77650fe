//! Strings: found by their closing quote, copied only when they have escapes.

use std::ops::Range;

use super::{Parser, Text};
use crate::{ReadError, scan};

/// What the letter behind a backslash stands for; 0 when it is not enough, or no escape.
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
    #[inline]
    pub(super) fn string(&mut self) -> Result<Text<'_>, ReadError> {
        let (range, plain) = self.string_range()?;
        Ok(self.text(range, plain))
    }

    /// The text of a string whose range was found before.
    #[inline]
    pub(super) fn text(&self, range: Range<usize>, plain: bool) -> Text<'_> {
        if plain {
            Text::Verbatim { at: range.start, text: &self.input.as_bytes()[range] }
        } else {
            Text::Unescaped(self.unescaped.written())
        }
    }

    /// Goes past the string that starts here. Where it stands and true, or anything and false when the unescaped text is in
    /// the buffer.
    #[inline]
    pub(super) fn string_range(&mut self) -> Result<(Range<usize>, bool), ReadError> {
        let start = self.at + 1;
        let end = start + scan::find_special(&self.input.as_bytes()[start..]);
        if self.input.as_bytes().get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok((start..end, true));
        }
        self.unescape(start, end)?;
        Ok((start..start, false))
    }

    /// Reads on from `end`, the first special byte of the string that starts at `start`.
    fn unescape(&mut self, start: usize, end: usize) -> Result<(), ReadError> {
        self.unescaped.truncate(0);
        self.put(start..end)?;
        self.at = end;
        loop {
            self.blocks()?;
            let start = self.at;
            self.at += scan::find_special(&self.input.as_bytes()[start..]);
            self.put(start..self.at)?;
            match self.input.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.unexpected()),
                None => return Err(ReadError::UnexpectedEnd),
            }
        }
    }

    /// Goes on in large steps as far as they reach: to the end of the string, or to an escape of more than a letter.
    #[inline]
    fn blocks(&mut self) -> Result<(), ReadError> {
        loop {
            let room = self.unescaped.room(scan::BLOCK_ROOM)?;
            let blocks = scan::copy_unescaped(&self.input.as_bytes()[self.at..], room, &LETTERS);
            self.unescaped.advance(blocks.written);
            self.at += blocks.read;
            // It stopped for want of room: the buffer grows.
            if self.unescaped.left() >= scan::BLOCK_ROOM {
                return Ok(());
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

    fn escape(&mut self) -> Result<(), ReadError> {
        let letter = *self.input.as_bytes().get(self.at + 1).ok_or(ReadError::UnexpectedEnd)?;
        match LETTERS[usize::from(letter)] {
            0 if letter == b'u' => self.unicode_escape(),
            0 => Err(ReadError::UnexpectedByte { at: self.at + 1, byte: letter }),
            byte => {
                self.at += 2;
                self.character(char::from(byte))
            }
        }
    }

    /// `\uXXXX`, or two of them that are the halves of one character.
    fn unicode_escape(&mut self) -> Result<(), ReadError> {
        let bad = ReadError::BadEscape { at: self.at };
        let first = self.code_unit(self.at)?.ok_or(bad)?;
        let (code, len) = match first {
            0xd800..0xdc00 => {
                let low = self.code_unit(self.at + 6)?.filter(|unit| (0xdc00..0xe000).contains(unit)).ok_or(bad)?;
                (0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00), 12)
            }
            code => (code, 6),
        };
        self.at += len;
        self.character(char::from_u32(code).ok_or(bad)?)
    }

    /// The value of the `\uXXXX` at `at`; `None` when it is none.
    fn code_unit(&self, at: usize) -> Result<Option<u32>, ReadError> {
        let Some([backslash, letter, digits @ ..]) = self.input.as_bytes().get(at..at + 6) else {
            return Err(ReadError::UnexpectedEnd);
        };
        let digits = digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?));
        Ok(digits.filter(|_| (*backslash, *letter) == (b'\\', b'u')))
    }
}
