//! Eight bytes at a time in an integer.

use super::Run;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The lowest high bit that is set marks the first special byte of the word. Higher bits may be set by a
/// borrow and mean nothing.
#[inline]
fn special(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = word ^ (ONES * 0x22);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = word ^ (ONES * 0x5c);
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (below_space | quote | backslash) & HIGH
}

#[inline]
fn word(src: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&src[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// The last one to seven bytes of `src` in the low bytes of a word; the other bytes are spaces.
#[inline]
fn tail(src: &[u8], at: usize) -> u64 {
    let left = src.len() - at;
    let filler = (ONES * 0x20) << (8 * left);
    if src.len() >= 8 {
        return word(src, src.len() - 8) >> (8 * (8 - left)) | filler;
    }
    let mut bytes = [0; 8];
    match left {
        1 => bytes[0] = src[at],
        2..4 => {
            bytes[..2].copy_from_slice(&src[at..at + 2]);
            bytes[left - 1] = src[at + left - 1];
        }
        _ => {
            bytes[..4].copy_from_slice(&src[at..at + 4]);
            bytes[left - 3..left].copy_from_slice(&src[at + left - 3..at + left]);
        }
    }
    u64::from_le_bytes(bytes) | filler
}

#[inline]
fn first(mask: u64) -> usize {
    mask.trailing_zeros() as usize / 8
}

#[inline]
pub(super) fn copy_plain(src: &[u8], dst: &mut [u8]) -> Run {
    let mut at = 0;
    let mut seen = 0;
    while at + 8 <= src.len() {
        let word = word(src, at);
        dst[at..at + 8].copy_from_slice(&word.to_le_bytes());
        seen |= word;
        let mask = special(word);
        if mask != 0 {
            return Run { len: at + first(mask), ascii: seen & HIGH == 0 };
        }
        at += 8;
    }
    if at < src.len() {
        let word = tail(src, at);
        dst[at..at + 8].copy_from_slice(&word.to_le_bytes());
        seen |= word;
        let mask = special(word);
        if mask != 0 {
            return Run { len: at + first(mask), ascii: seen & HIGH == 0 };
        }
    }
    Run { len: src.len(), ascii: seen & HIGH == 0 }
}

#[inline]
pub(super) fn find_special(src: &[u8]) -> usize {
    let mut at = 0;
    while at + 8 <= src.len() {
        let mask = special(word(src, at));
        if mask != 0 {
            return at + first(mask);
        }
        at += 8;
    }
    if at < src.len() {
        let mask = special(tail(src, at));
        if mask != 0 {
            return at + first(mask);
        }
    }
    src.len()
}
