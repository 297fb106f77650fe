//! Random names and secrets.

use crate::{Error, Result};

/// So many random bytes, as hexadecimal digits.
pub fn hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)
        .map_err(|error| Error::Io { doing: "reading random bytes".into(), source: std::io::Error::other(error) })?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A random seed, short enough to be typed.
pub fn seed() -> Result<u64> {
    let digits = hex(4)?;
    u64::from_str_radix(&digits, 16).map_err(|error| Error::protocol(error.to_string()))
}

/// Numbers that a seed determines (SplitMix64): the same seed does the same to a cluster.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A whole number from `low` to `high`.
    pub fn whole(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// A number from `low` to `high`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.number() >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_every_number() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            [random.number(), random.number(), random.number()]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        let mut random = Random::new(1);
        assert!((0..1_000).all(|_| (0.2..0.8).contains(&random.between(0.2, 0.8))));
    }
}
