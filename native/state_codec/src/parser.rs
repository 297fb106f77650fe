//! A parser that passes events to a [`Sink`]. It builds no values and reads each byte once.
//!
//! Guarantee: the events are those of the term that Elixir's `JSON.decode!/1` returns, in order. A text that it refuses
//! is an error here, and so is one nested deeper than [`MAX_DEPTH`]. No recursion; the memory used is that of the
//! longest string with escapes.
//!
//! Functions take and return the position in the text, so that it stays in a register: every read depends on it.

mod number;
mod string;

use crate::{Declined, MAX_DEPTH, Output, ReadError};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'p> {
    Null,
    Bool(bool),
    /// An integer that fits 64 bits. `-0` is 0.
    Integer(i64),
    /// The digits, with their sign, of an integer that does not fit.
    BigInteger(&'p str),
    /// A number with a fraction or an exponent, rounded to the nearest float.
    Float(f64),
    String(Text<'p>),
    /// A string that is a key; the value follows.
    Key(Text<'p>),
    ArrayStart,
    ArrayEnd,
    ObjectStart,
    ObjectEnd,
}

/// The contents of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'p> {
    /// As they stand in the input, from byte `at` on.
    Verbatim {
        /// Where they start.
        at: usize,
        /// What they are: UTF-8.
        text: &'p [u8],
    },
    /// The contents without their escapes, as UTF-8, valid only during the event.
    Unescaped(&'p [u8]),
}

impl<'p> Text<'p> {
    /// The contents, wherever they are: UTF-8.
    #[inline]
    pub fn as_bytes(&self) -> &'p [u8] {
        match self {
            Text::Verbatim { text, .. } | Text::Unescaped(text) => text,
        }
    }
}

/// Receives the events of a text.
pub trait Sink {
    /// Takes the next event. [`Declined`] ends the walk.
    fn take(&mut self, event: Event<'_>) -> Result<(), Declined>;
}

/// The brackets that are open: one bit for each, set for an object, the innermost lowest.
#[derive(Debug, Clone, Copy, Default)]
struct Nesting {
    objects: u128,
    depth: usize,
}

impl Nesting {
    /// Opens a bracket that stands at `at`.
    #[inline]
    fn open(&mut self, object: bool, at: usize) -> Result<(), ReadError> {
        if self.depth == MAX_DEPTH {
            return Err(ReadError::TooDeep { at });
        }
        self.objects = self.objects << 1 | u128::from(object);
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn close(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// A text, and room for its strings that have escapes.
#[derive(Debug)]
pub struct Parser<'i> {
    input: &'i str,
    unescaped: Output<Vec<u8>>,
}

impl<'i> Parser<'i> {
    pub fn new(input: &'i str) -> Self {
        Parser::with_buffer(input, Vec::new())
    }

    /// As `new`, with the memory of an earlier parser for unescaped strings.
    pub fn with_buffer(input: &'i str, buffer: Vec<u8>) -> Self {
        Parser { input, unescaped: Output::new(buffer, usize::MAX) }
    }

    /// Returns the memory for unescaped strings, for another parser.
    pub fn into_buffer(self) -> Vec<u8> {
        self.unescaped.into_parts().0
    }

    /// Passes all events of the text to `sink`, in order. If the text is refused, they have no meaning.
    #[inline]
    pub fn read(&mut self, sink: &mut impl Sink) -> Result<(), ReadError> {
        let mut nesting = Nesting::default();
        let mut at = 0;
        // One iteration for each value, with its key.
        'values: loop {
            if nesting.in_object() {
                at = self.key(at, sink)?;
            }
            let (byte, start) = self.token(at)?;
            let complete;
            (at, complete) = match byte {
                b'"' => {
                    let (text, end) = self.string(start)?;
                    sink.take(Event::String(text))?;
                    (end, true)
                }
                b'-' | b'0'..=b'9' => {
                    let (number, end) = self.number(start)?;
                    sink.take(number)?;
                    (end, true)
                }
                b'{' => self.open(start, true, &mut nesting, sink)?,
                b'[' => self.open(start, false, &mut nesting, sink)?,
                b't' => (self.word(start, "true", Event::Bool(true), sink)?, true),
                b'f' => (self.word(start, "false", Event::Bool(false), sink)?, true),
                b'n' => (self.word(start, "null", Event::Null, sink)?, true),
                _ => return Err(self.unexpected(start)),
            };
            if !complete {
                continue;
            }
            // The position is after a value, or at the end of an empty container.
            while nesting.depth > 0 {
                let (byte, next) = self.token(at)?;
                at = next + 1;
                match (byte, nesting.in_object()) {
                    (b',', _) => continue 'values,
                    (b'}', true) => sink.take(Event::ObjectEnd)?,
                    (b']', false) => sink.take(Event::ArrayEnd)?,
                    _ => return Err(self.unexpected(next)),
                }
                nesting.close();
            }
            return match self.token(at) {
                Ok((_, behind)) => Err(self.unexpected(behind)),
                Err(_) => Ok(()),
            };
        }
    }

    /// Opens the container whose bracket stands at `start`. Returns where its end or its first element is, and
    /// whether it is empty.
    #[inline(always)]
    fn open(
        &self,
        start: usize,
        object: bool,
        nesting: &mut Nesting,
        sink: &mut impl Sink,
    ) -> Result<(usize, bool), ReadError> {
        nesting.open(object, start)?;
        let (event, end) = if object { (Event::ObjectStart, b'}') } else { (Event::ArrayStart, b']') };
        sink.take(event)?;
        let (byte, next) = self.token(start + 1)?;
        Ok((next, byte == end))
    }

    /// Goes past the key that is next, and its colon.
    #[inline(always)]
    fn key(&mut self, at: usize, sink: &mut impl Sink) -> Result<usize, ReadError> {
        let (byte, start) = self.token(at)?;
        if byte != b'"' {
            return Err(self.unexpected(start));
        }
        let (text, end) = self.string(start)?;
        sink.take(Event::Key(text))?;
        match self.token(end)? {
            (b':', colon) => Ok(colon + 1),
            (_, other) => Err(self.unexpected(other)),
        }
    }

    /// Reads `word`, whose first letter has been seen.
    #[inline]
    fn word(&self, start: usize, word: &str, event: Event<'static>, sink: &mut impl Sink) -> Result<usize, ReadError> {
        let rest = &self.input.as_bytes()[start..];
        if rest.starts_with(word.as_bytes()) {
            sink.take(event)?;
            return Ok(start + word.len());
        }
        let same = rest.iter().zip(word.as_bytes()).take_while(|(a, b)| a == b).count();
        Err(self.unexpected(start + same))
    }

    /// The next byte from `at` on that is not white space, and where it stands.
    #[inline(always)]
    fn token(&self, mut at: usize) -> Result<(u8, usize), ReadError> {
        let bytes = self.input.as_bytes();
        while let Some(&byte) = bytes.get(at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok((byte, at));
            }
            at += 1;
        }
        Err(ReadError::UnexpectedEnd)
    }

    #[cold]
    fn unexpected(&self, at: usize) -> ReadError {
        match self.input.as_bytes().get(at) {
            Some(&byte) => ReadError::UnexpectedByte { at, byte },
            None => ReadError::UnexpectedEnd,
        }
    }
}
