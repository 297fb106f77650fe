//! Numbers: integers in 64 bits, floats rounded correctly.

use super::{Event, Parser};
use crate::ReadError;

/// Every power of ten that is a float of its own: a product with one of them is rounded once, correctly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Below that every integer is a float of its own.
const EXACT: u64 = 1 << 53;

/// As many digits fit into 64 bits whatever they are.
const DIGITS: usize = 19;

impl<'i> Parser<'i> {
    /// Reads the number that starts here.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Event<'i>, ReadError> {
        let bytes = self.input.as_bytes();
        let start = self.at;
        let negative = bytes[start] == b'-';
        self.at += usize::from(negative);

        let mut digits = Digits::default();
        let zero = bytes.get(self.at) == Some(&b'0');
        if zero {
            self.at += 1;
        } else {
            self.at = digits.read(bytes, self.at);
            if digits.count == 0 {
                return Err(self.unexpected());
            }
        }
        match bytes.get(self.at) {
            Some(b'.') => self.float(start, negative, digits),
            // A zero with an exponent and no fraction gives up its sign, as it does in Erlang.
            Some(b'e' | b'E') => self.float(start, negative && !zero, digits),
            _ => Ok(self.integer(start, negative, &digits)),
        }
    }

    #[inline]
    fn integer(&self, start: usize, negative: bool, digits: &Digits) -> Event<'i> {
        let value = if negative { 0_i64.checked_sub_unsigned(digits.value) } else { i64::try_from(digits.value).ok() };
        match value {
            Some(value) if digits.count <= DIGITS => Event::Integer(value),
            _ => Event::BigInteger(&self.input[start..self.at]),
        }
    }

    #[inline]
    fn float(&mut self, start: usize, negative: bool, mut digits: Digits) -> Result<Event<'i>, ReadError> {
        let bytes = self.input.as_bytes();
        let mut exponent = 0_i64;
        if bytes[self.at] == b'.' {
            let fraction = self.at + 1;
            self.at = digits.read(bytes, fraction);
            if self.at == fraction {
                return Err(self.unexpected());
            }
            // The distance of two positions in one slice.
            exponent -= i64::try_from(self.at - fraction).unwrap_or(i64::MAX);
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            exponent = exponent.saturating_add(self.exponent()?);
        }
        let size = match digits.scaled(exponent) {
            Some(exact) => exact,
            None => self.input[start..self.at].trim_start_matches('-').parse().unwrap_or(f64::INFINITY),
        };
        if size.is_infinite() {
            return Err(ReadError::NumberRange { at: start });
        }
        Ok(Event::Float(if negative { -size } else { size }))
    }

    /// The exponent behind an `e`; past nineteen digits its size no longer matters.
    fn exponent(&mut self) -> Result<i64, ReadError> {
        let bytes = self.input.as_bytes();
        self.at += 1;
        let negative = bytes.get(self.at) == Some(&b'-');
        if let Some(b'+' | b'-') = bytes.get(self.at) {
            self.at += 1;
        }
        let mut digits = Digits::default();
        self.at = digits.read(bytes, self.at);
        if digits.count == 0 {
            return Err(self.unexpected());
        }
        let size = if digits.count > 9 { i64::MAX / 4 } else { i64::try_from(digits.value).unwrap_or(i64::MAX / 4) };
        Ok(if negative { -size } else { size })
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
