//! Numbers: integers in decimal, floats as Erlang's `float_to_binary(F, [:short])` lays them out.
//!
//! Guarantee: a float is written with the fewest digits that read back as the same float, always with a digit on both sides
//! of the point. Of the two notations the shorter one is used (the plain one when both are as long), except that
//! from 2^53 on it is always the scientific one, because not every integer has a float of its own there.

use crate::WriteError;
use crate::output::{Output, Storage, copy_small};

/// 2^53: above it, neighbouring integers share a float.
const LARGEST_PLAIN: f64 = 9_007_199_254_740_992.0;

/// Writes an integer.
#[inline]
pub fn put_integer<S: Storage>(output: &mut Output<S>, integer: i64) -> Result<(), WriteError> {
    let mut buffer = itoa::Buffer::new();
    put_all(output, buffer.format(integer).as_bytes())
}

/// Writes a finite float.
#[inline]
pub fn put_float<S: Storage>(output: &mut Output<S>, float: f64) -> Result<(), WriteError> {
    if let Some(hundredths) = hundredths(float) {
        return put_hundredths(output, float.is_sign_negative(), hundredths);
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(float).as_bytes();
    if plain_as_it_is(float) {
        put_all(output, shortest)
    } else {
        put_laid_out(output, &Decimal::read(shortest), float.abs())
    }
}

#[inline]
fn put_all<S: Storage>(output: &mut Output<S>, bytes: &[u8]) -> Result<(), WriteError> {
    copy_small(bytes, output.room(bytes.len())?);
    output.advance(bytes.len());
    Ok(())
}

/// Whether the plain notation is certain to be the shorter one: a fraction that does not start with many zeros.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "asks whether there is a fraction")]
fn plain_as_it_is(float: f64) -> bool {
    let size = float.abs();
    (0.001..LARGEST_PLAIN).contains(&size) && (size as i64) as f64 != size
}

/// The float as a number of hundredths, if it is nearest to a decimal with two places, such as a price: not a whole
/// number, and at least 0.01.
///
/// No two decimals of at most fifteen digits have the same nearest float. So this decimal is the shortest one: one
/// with fewer digits would have another nearest float.
#[inline]
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "below 10^13")]
fn hundredths(float: f64) -> Option<u64> {
    let size = float.abs();
    if !(0.01..1e13).contains(&size) {
        return None;
    }
    let hundredths = (size * 100.0 + 0.5) as i64;
    // Both are exact, so that the quotient is the float nearest to the decimal.
    (hundredths as f64 / 100.0 == size && hundredths % 100 != 0).then_some(hundredths as u64)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "digits")]
fn put_hundredths<S: Storage>(output: &mut Output<S>, negative: bool, hundredths: u64) -> Result<(), WriteError> {
    let (whole, part) = (hundredths / 100, hundredths % 100);
    let mut buffer = itoa::Buffer::new();
    let whole = buffer.format(whole).as_bytes();
    // A sign, the digits, a point and two more.
    let room = output.room(whole.len() + 4)?;
    room[0] = b'-';
    let sign = usize::from(negative);
    copy_small(whole, &mut room[sign..]);
    let end = sign + whole.len();
    let [tens, ones] = [part / 10, part % 10].map(|digit| b'0' + digit as u8);
    room[end..end + 3].copy_from_slice(&[b'.', tens, ones]);
    output.advance(end + if ones == b'0' { 2 } else { 3 });
    Ok(())
}

/// `0.d1d2d3... * 10^point`, without zeros at either end.
struct Decimal {
    negative: bool,
    digits: [u8; 17],
    len: usize,
    point: i32,
}

impl Decimal {
    /// Parses the output of the digit library, in either notation.
    fn read(printed: &[u8]) -> Self {
        let mut decimal = Decimal { negative: false, digits: [b'0'; 17], len: 0, point: 0 };
        let mut zeros = 0;
        let mut behind_point = false;
        let mut exponent = 0;
        for (at, &byte) in printed.iter().enumerate() {
            match byte {
                b'-' => decimal.negative = true,
                b'.' => behind_point = true,
                b'e' | b'E' => {
                    exponent = read_exponent(&printed[at + 1..]);
                    break;
                }
                b'0' if decimal.len == 0 => decimal.point -= i32::from(behind_point),
                b'0' => {
                    zeros += 1;
                    decimal.point += i32::from(!behind_point);
                }
                digit => {
                    // Zeros count only if another digit follows.
                    decimal.len += zeros + 1;
                    zeros = 0;
                    decimal.digits[decimal.len - 1] = digit;
                    decimal.point += i32::from(!behind_point);
                }
            }
        }
        decimal.point += exponent;
        if decimal.len == 0 {
            (decimal.len, decimal.point) = (1, 1);
        }
        decimal
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// Whether the plain notation is at most as long as the scientific one. `size` is the float without its
    /// sign.
    fn is_plain(&self, size: f64) -> bool {
        let len = i32::try_from(self.len).unwrap_or(i32::MAX);
        let zeros_before = -self.point;
        let zeros_behind = self.point - len;
        // The length of the exponent: "e2" and "e10" after the digits, "e-4" and "e-10" in place of zeros
        // before them, and one more where a single digit needs a zero after the point.
        let (most_before, most_behind) = match len {
            1 => (3, 2),
            _ if self.point > 10 => (2, 2),
            _ => (2, 1),
        };
        size < LARGEST_PLAIN && zeros_before <= most_before && zeros_behind <= most_behind
    }
}

fn read_exponent(printed: &[u8]) -> i32 {
    let (sign, digits) = match printed {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] | digits => (1, digits),
    };
    sign * digits.iter().fold(0, |value, &digit| value * 10 + i32::from(digit - b'0'))
}

fn put_laid_out<S: Storage>(output: &mut Output<S>, decimal: &Decimal, size: f64) -> Result<(), WriteError> {
    // A sign, 17 digits, at most three zeros, a point and an exponent.
    output.reserve(32)?;
    if decimal.negative {
        output.put_byte(b'-');
    }
    if decimal.is_plain(size) {
        put_plain(output, decimal)
    } else {
        put_scientific(output, decimal)
    }
    Ok(())
}

fn put_plain<S: Storage>(output: &mut Output<S>, decimal: &Decimal) {
    let digits = decimal.digits();
    match usize::try_from(decimal.point) {
        Ok(0) | Err(_) => {
            output.put(b"0.");
            (decimal.point..0).for_each(|_| output.put_byte(b'0'));
            output.put(digits);
        }
        Ok(point) if point < digits.len() => {
            output.put(&digits[..point]);
            output.put_byte(b'.');
            output.put(&digits[point..]);
        }
        Ok(point) => {
            output.put(digits);
            (digits.len()..point).for_each(|_| output.put_byte(b'0'));
            output.put(b".0");
        }
    }
}

fn put_scientific<S: Storage>(output: &mut Output<S>, decimal: &Decimal) {
    let digits = decimal.digits();
    output.put_byte(digits[0]);
    output.put_byte(b'.');
    output.put(if digits.len() > 1 { &digits[1..] } else { b"0" });
    output.put_byte(b'e');
    output.put(itoa::Buffer::new().format(decimal.point - 1).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(value: f64) -> String {
        let mut output = Output::new(Vec::new(), usize::MAX);
        put_float(&mut output, value).expect("room");
        String::from_utf8(output.written().to_vec()).expect("ASCII")
    }

    /// Recorded from `float_to_binary(F, [:short])` of OTP 25 and 29.
    #[test]
    fn floats_have_the_format_of_erlang() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (100.0, "100.0"),
            (1000.0, "1.0e3"),
            (1200.0, "1.2e3"),
            (12000.0, "1.2e4"),
            (12340.0, "12340.0"),
            (123_400.0, "1.234e5"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (0.00001, "1.0e-5"),
            (0.0012, "0.0012"),
            (0.00012, "1.2e-4"),
            (123_456_789.125, "123456789.125"),
            (12_345_678_900.0, "12345678900.0"),
            (123_456_789_000.0, "1.23456789e11"),
            (9_007_199_254_740_991.0, "9007199254740991.0"),
            (9_007_199_254_740_992.0, "9.007199254740992e15"),
            (9_007_199_254_740_990.0, "9007199254740990.0"),
            (1.0e15, "1.0e15"),
            (1.0e22, "1.0e22"),
            (5.0e-324, "5.0e-324"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        ] {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn integers_are_decimal() {
        let mut output = Output::new(Vec::new(), usize::MAX);
        for integer in [0, -1, i64::MAX, i64::MIN] {
            put_integer(&mut output, integer).expect("room");
            output.put_byte(b' ');
        }
        assert_eq!(output.written(), b"0 -1 9223372036854775807 -9223372036854775808 ");
    }
}
