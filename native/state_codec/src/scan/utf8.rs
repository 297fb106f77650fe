//! Whether bytes are UTF-8, thirty-two at a time with AVX2, for a scan that has them in a register already. The method is that of
//! Keiser and Lemire, "Validating UTF-8 in less than one instruction per byte": three tables of sixteen entries say of each
//! pair of neighbours what is wrong with it.
//!
//! Guarantee: by the same rules as Elixir: no surrogates, nothing overlong, nothing above U+10FFFF. A character that the last
//! block cuts off is not wrong yet: [`cut_off`] says how much of it there is.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_alignr_epi8, _mm256_and_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256,
    _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_subs_epu8,
    _mm256_testz_si256, _mm256_xor_si256,
};

/// Sets of nibbles, one bit for each.
const ANY: u16 = 0xffff;
const ASCII: u16 = 0x00ff;
const FOLLOWING: u16 = 0x0f00;
const LEADING: u16 = 0xf000;

/// Invalid pairs of bytes: the upper and the lower nibble of a byte, and the upper nibble of the next one.
const WRONG: [[u16; 3]; 8] = [
    // A character with too few bytes, and one with too many.
    [LEADING, ANY, ASCII | LEADING],
    [ASCII, ANY, FOLLOWING],
    // Overlong forms of two, three and four bytes; with the last, what is above U+10FFFF from its first byte on.
    [1 << 0xc, 0x0003, FOLLOWING],
    [1 << 0xe, 0x0001, 0x0300],
    [1 << 0xf, 0xffe1, 0x0100],
    // Surrogates.
    [1 << 0xe, 1 << 0xd, 0x0c00],
    // Above U+10FFFF.
    [1 << 0xf, 0xfff0, 0x0e00],
    // Two continuation bytes: valid only in a character of three or four bytes. Must be the highest bit.
    [FOLLOWING, ANY, FOLLOWING],
];

/// One table for each of the three halves, for both lanes: a bit for each of [`WRONG`].
static TABLES: [[u8; 32]; 3] = {
    let mut tables = [[0; 32]; 3];
    let mut at = 0;
    while at < 3 * 8 * 32 {
        let (half, wrong, entry) = (at / 256, at / 32 % 8, at % 32);
        if WRONG[wrong][half] >> (entry % 16) & 1 == 1 {
            tables[half][entry] |= 1 << wrong;
        }
        at += 1;
    }
    tables
};

/// The state after the bytes so far.
#[derive(Clone, Copy)]
pub struct Checker {
    last: __m256i,
    wrong: __m256i,
}

impl Checker {
    /// Nothing seen.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn new() -> Self {
        Checker { last: _mm256_setzero_si256(), wrong: _mm256_setzero_si256() }
    }

    /// The next thirty-two bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn block(&mut self, bytes: __m256i) {
        let across = _mm256_permute2x128_si256::<0x21>(self.last, bytes);
        let [one, two, three] = [
            _mm256_alignr_epi8::<15>(bytes, across),
            _mm256_alignr_epi8::<14>(bytes, across),
            _mm256_alignr_epi8::<13>(bytes, across),
        ];
        let half = _mm256_set1_epi8(0x0f);
        let upper = |bytes| _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), half);
        // SAFETY: each table has 32 bytes.
        let [first, second, third] = [0, 1, 2].map(|at| unsafe { _mm256_loadu_si256(TABLES[at].as_ptr().cast()) });
        let pair = _mm256_and_si256(
            _mm256_and_si256(
                _mm256_shuffle_epi8(first, upper(one)),
                _mm256_shuffle_epi8(second, _mm256_and_si256(one, half)),
            ),
            _mm256_shuffle_epi8(third, upper(bytes)),
        );
        // The highest bit is set where the byte two before starts a character of at least three bytes, or the
        // byte three before one of four.
        let third_byte = _mm256_subs_epu8(two, _mm256_set1_epi8(0x60));
        let fourth_byte = _mm256_subs_epu8(three, _mm256_set1_epi8(0x70));
        let right = _mm256_and_si256(_mm256_or_si256(third_byte, fourth_byte), _mm256_set1_epi8(i8::MIN));
        self.wrong = _mm256_or_si256(self.wrong, _mm256_xor_si256(right, pair));
        self.last = bytes;
    }

    /// Whether all bytes were valid.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn valid(&self) -> bool {
        _mm256_testz_si256(self.wrong, self.wrong) == 1
    }
}

/// How many bytes at the end of `bytes` begin a character that continues after them.
pub fn cut_off(bytes: &[u8]) -> usize {
    let last = bytes.iter().rev().take(3);
    let start = last.enumerate().find(|(_, byte)| **byte >= 0xc0);
    start.map_or(0, |(behind, &byte)| {
        let len = 2 + usize::from(byte >= 0xe0) + usize::from(byte >= 0xf0);
        if behind + 1 < len { behind + 1 } else { 0 }
    })
}
