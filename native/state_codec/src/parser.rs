//! A pull parser: one event after the other, nothing built, nothing looked at twice.
//!
//! Guarantee: the events of a text are exactly what Elixir's `JSON.decode!/1` makes a term of, in order; a text it refuses
//! ends in an error here, as does one nested deeper than [`MAX_DEPTH`]. No recursion; memory is the longest string that
//! has escapes. After an error the parser says nothing sensible any more.

mod number;
mod string;

use crate::{MAX_DEPTH, Output, ReadError};

/// One step through a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'p> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer that fits. `-0` is 0.
    Integer(i64),
    /// The digits, with their sign, of one that does not.
    BigInteger(&'p str),
    /// A number with a fraction or an exponent, rounded to the nearest float.
    Float(f64),
    /// A string that is a value.
    String(Text<'p>),
    /// A string that is a key; the value follows.
    Key(Text<'p>),
    /// `[`
    ArrayStart,
    /// `]`
    ArrayEnd,
    /// `{`
    ObjectStart,
    /// `}`
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
    /// They had escapes: UTF-8 without them, valid until the next event.
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

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    KeyOrEnd,
    CommaOrEnd,
    Nothing,
}

/// The brackets that are open: one bit for each, set for an object, the innermost lowest.
#[derive(Debug, Clone, Copy, Default)]
struct Nesting {
    objects: u128,
    depth: usize,
}

impl Nesting {
    #[inline]
    fn open(&mut self, object: bool) -> bool {
        self.objects = self.objects << 1 | u128::from(object);
        self.depth += 1;
        self.depth <= MAX_DEPTH
    }

    #[inline]
    fn close(&mut self) -> Expect {
        self.objects >>= 1;
        self.depth -= 1;
        if self.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd }
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// The state of one walk through a text.
#[derive(Debug)]
pub struct Parser<'i> {
    input: &'i str,
    at: usize,
    expect: Expect,
    nesting: Nesting,
    unescaped: Output<Vec<u8>>,
}

impl<'i> Parser<'i> {
    /// A parser at the start of `input`.
    pub fn new(input: &'i str) -> Self {
        Parser::with_buffer(input, Vec::new())
    }

    /// The same, with memory of an earlier one to put unescaped strings into.
    pub fn with_buffer(input: &'i str, buffer: Vec<u8>) -> Self {
        let unescaped = Output::new(buffer, usize::MAX);
        Parser { input, at: 0, expect: Expect::Value, nesting: Nesting::default(), unescaped }
    }

    /// The memory for unescaped strings, to be used again.
    pub fn into_buffer(self) -> Vec<u8> {
        self.unescaped.into_parts().0
    }

    /// The next event; `None` when the value and the text end.
    ///
    /// # Errors
    /// When the text is not JSON.
    #[inline(always)]
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, ReadError> {
        let Some(byte) = self.token() else {
            return if self.expect == Expect::Nothing { Ok(None) } else { Err(ReadError::UnexpectedEnd) };
        };
        match self.expect {
            Expect::Value => self.value(byte),
            Expect::CommaOrEnd if byte == b',' => self.behind_comma(),
            Expect::CommaOrEnd if byte == b'}' && self.nesting.in_object() => Ok(self.close(Event::ObjectEnd)),
            Expect::CommaOrEnd if byte == b']' && !self.nesting.in_object() => Ok(self.close(Event::ArrayEnd)),
            Expect::ValueOrEnd if byte == b']' => Ok(self.close(Event::ArrayEnd)),
            Expect::ValueOrEnd => self.value(byte),
            Expect::KeyOrEnd if byte == b'}' => Ok(self.close(Event::ObjectEnd)),
            Expect::KeyOrEnd => self.key(byte),
            Expect::CommaOrEnd | Expect::Nothing => Err(self.unexpected()),
        }
        .map(Some)
    }

    #[inline]
    fn behind_comma(&mut self) -> Result<Event<'_>, ReadError> {
        self.at += 1;
        let byte = self.token().ok_or(ReadError::UnexpectedEnd)?;
        if self.nesting.in_object() { self.key(byte) } else { self.value(byte) }
    }

    #[inline]
    fn value(&mut self, byte: u8) -> Result<Event<'_>, ReadError> {
        match byte {
            b'"' => {
                self.behind_value();
                self.string().map(Event::String)
            }
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'-' | b'0'..=b'9' => {
                self.behind_value();
                self.number()
            }
            b't' => self.word("true", Event::Bool(true)),
            b'f' => self.word("false", Event::Bool(false)),
            b'n' => self.word("null", Event::Null),
            _ => Err(self.unexpected()),
        }
    }

    #[inline(always)]
    fn key(&mut self, byte: u8) -> Result<Event<'_>, ReadError> {
        if byte != b'"' {
            return Err(self.unexpected());
        }
        let (range, plain) = self.string_range()?;
        match self.token() {
            Some(b':') => self.at += 1,
            Some(_) => return Err(self.unexpected()),
            None => return Err(ReadError::UnexpectedEnd),
        }
        self.expect = Expect::Value;
        Ok(Event::Key(self.text(range, plain)))
    }

    #[inline]
    fn open(&mut self, object: bool) -> Result<Event<'_>, ReadError> {
        if !self.nesting.open(object) {
            return Err(ReadError::TooDeep { at: self.at });
        }
        self.at += 1;
        if object {
            self.expect = Expect::KeyOrEnd;
            Ok(Event::ObjectStart)
        } else {
            self.expect = Expect::ValueOrEnd;
            Ok(Event::ArrayStart)
        }
    }

    #[inline]
    fn close(&mut self, event: Event<'static>) -> Event<'static> {
        self.at += 1;
        self.expect = self.nesting.close();
        event
    }

    #[inline]
    fn word(&mut self, word: &str, event: Event<'static>) -> Result<Event<'static>, ReadError> {
        let rest = &self.input.as_bytes()[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            self.behind_value();
            return Ok(event);
        }
        let same = rest.iter().zip(word.as_bytes()).take_while(|(a, b)| a == b).count();
        match rest.get(same) {
            Some(&byte) => Err(ReadError::UnexpectedByte { at: self.at + same, byte }),
            None => Err(ReadError::UnexpectedEnd),
        }
    }

    #[inline]
    fn behind_value(&mut self) {
        self.expect = if self.nesting.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    /// The next byte that is not white space, not consumed.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        let bytes = self.input.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    #[cold]
    fn unexpected(&self) -> ReadError {
        match self.input.as_bytes().get(self.at) {
            Some(&byte) => ReadError::UnexpectedByte { at: self.at, byte },
            None => ReadError::UnexpectedEnd,
        }
    }
}
