//! Numbers: integers in 64 bits, floats rounded correctly.

use super::{Event, Parser};
use crate::ReadError;

/// Every power of ten that is exactly a float: a product with one of them is rounded once, so correctly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Every integer up to this one is exactly a float.
const EXACT: u64 = 1 << 53;

/// Any number of this many digits fits 64 bits.
const DIGITS: usize = 19;

impl<'i> Parser<'i> {
    /// The number that starts at `start`, and where it ends.
    #[inline]
    pub(super) fn number(&self, start: usize) -> Result<(Event<'i>, usize), ReadError> {
        let bytes = self.input.as_bytes();
        let negative = bytes[start] == b'-';
        let first = start + usize::from(negative);

        let mut digits = Digits::default();
        let zero = bytes.get(first) == Some(&b'0');
        let end = if zero { first + 1 } else { digits.read(bytes, first) };
        if end == first {
            return Err(self.unexpected(end));
        }
        match bytes.get(end) {
            Some(b'.') => self.float(start, end, negative, digits),
            // A zero with an exponent and no fraction loses its sign, as in Erlang.
            Some(b'e' | b'E') => self.float(start, end, negative && !zero, digits),
            _ => Ok((self.integer(start, end, negative, &digits), end)),
        }
    }

    #[inline]
    fn integer(&self, start: usize, end: usize, negative: bool, digits: &Digits) -> Event<'i> {
        let value = if negative { 0_i64.checked_sub_unsigned(digits.value) } else { i64::try_from(digits.value).ok() };
        match value {
            Some(value) if digits.count <= DIGITS => Event::Integer(value),
            _ => Event::BigInteger(&self.input[start..end]),
        }
    }

    /// The float that starts at `start` and whose integer part, `digits`, ends at `at`.
    #[inline]
    fn float(
        &self,
        start: usize,
        mut at: usize,
        negative: bool,
        mut digits: Digits,
    ) -> Result<(Event<'i>, usize), ReadError> {
        let bytes = self.input.as_bytes();
        let mut exponent = 0_i64;
        if bytes[at] == b'.' {
            let fraction = at + 1;
            at = digits.read(bytes, fraction);
            if at == fraction {
                return Err(self.unexpected(at));
            }
            // The distance of two positions in one slice.
            exponent -= i64::try_from(at - fraction).unwrap_or(i64::MAX);
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            let (behind_point, end) = self.exponent(at)?;
            exponent = exponent.saturating_add(behind_point);
            at = end;
        }
        let size = match digits.scaled(exponent) {
            Some(exact) => exact,
            None => self.input[start..at].trim_start_matches('-').parse().unwrap_or(f64::INFINITY),
        };
        if size.is_infinite() {
            return Err(ReadError::NumberRange { at: start });
        }
        Ok((Event::Float(if negative { -size } else { size }), at))
    }

    /// The exponent whose `e` is at `at`, and where it ends; past nineteen digits its size no longer matters.
    fn exponent(&self, at: usize) -> Result<(i64, usize), ReadError> {
        let bytes = self.input.as_bytes();
        let negative = bytes.get(at + 1) == Some(&b'-');
        let first = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let mut digits = Digits::default();
        let end = digits.read(bytes, first);
        if digits.count == 0 {
            return Err(self.unexpected(end));
        }
        let size = if digits.count > 9 { i64::MAX / 4 } else { i64::try_from(digits.value).unwrap_or(i64::MAX / 4) };
        Ok((if negative { -size } else { size }, end))
    }
}

/// Digits read so far. The value is meaningless from the twentieth on.
#[derive(Default)]
struct Digits {
    value: u64,
    count: usize,
}

impl Digits {
    /// Reads digits from `at` on; where they end.
    #[inline]
    fn read(&mut self, bytes: &[u8], at: usize) -> usize {
        let mut end = at;
        while let Some(digit) = bytes.get(end).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
            self.value = self.value.wrapping_mul(10).wrapping_add(u64::from(digit));
            end += 1;
        }
        self.count += end - at;
        end
    }

    /// The value times ten to the `exponent`, where one multiplication or division of exact floats gives it.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    fn scaled(&self, exponent: i64) -> Option<f64> {
        if self.count > DIGITS || self.value > EXACT {
            return None;
        }
        let power = *POWERS.get(usize::try_from(exponent.unsigned_abs()).ok()?)?;
        let value = self.value as f64;
        Some(if exponent < 0 { value / power } else { value * power })
    }
}
