//! Random names, secrets and seeds. What a seed determines comes from [`handoff_sim::random::Random`].

use crate::{Error, Result};

/// This many random bytes, as hexadecimal digits.
pub fn hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random)
        .map_err(|error| Error::Io { doing: "reading random bytes".into(), source: std::io::Error::other(error) })?;
    Ok(digits(&random))
}

pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random seed, short enough to be typed.
pub fn seed() -> Result<u64> {
    let digits = hex(4)?;
    u64::from_str_radix(&digits, 16).map_err(|error| Error::protocol(error.to_string()))
}
