//! Integers of more than 64 bits: from decimal digits to the external term format, which the BEAM reads.
//!
//! Guarantee: bounded work. The conversion is quadratic, so integers of more than 600 digits are left to Elixir.

/// The length field of the format has one byte, which more digits would not fit either.
const MOST_DIGITS: usize = 600;

/// Digits converted in one step: ten to the nineteenth fits 64 bits.
const STEP: usize = 19;

/// `digits`, with a sign or without, in the external term format; `None` when they are too many.
pub fn external(digits: &str) -> Option<Vec<u8>> {
    let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |digits| (true, digits));
    if digits.len() > MOST_DIGITS {
        return None;
    }
    // Base 2^64, the lowest first.
    let mut limbs: Vec<u64> = Vec::with_capacity(MOST_DIGITS / STEP + 1);
    for step in digits.as_bytes().chunks(STEP) {
        let power = 10_u64.pow(u32::try_from(step.len()).ok()?);
        let mut carry = step.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        for limb in &mut limbs {
            (*limb, carry) = limb.carrying_mul(power, carry);
        }
        if carry > 0 {
            limbs.push(carry);
        }
    }
    let mut bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    let mut external = vec![131, 110, u8::try_from(bytes.len()).ok()?, u8::from(negative)];
    external.extend_from_slice(&bytes);
    Some(external)
}

#[cfg(test)]
mod tests {
    use super::external;

    #[test]
    fn digits_give_the_bytes_of_the_vm() {
        // term_to_binary(-123456789012345678901234567890)
        let expected = [131, 110, 13, 1, 210, 10, 63, 78, 238, 224, 115, 195, 246, 15, 233, 142, 1];
        assert_eq!(external("-123456789012345678901234567890").as_deref(), Some(&expected[..]));
        assert_eq!(external("18446744073709551616").as_deref(), Some(&[131, 110, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..]));
    }

    #[test]
    fn numbers_with_too_many_digits_are_refused() {
        assert!(external(&"9".repeat(600)).is_some());
        assert_eq!(external(&"9".repeat(601)), None);
    }
}
