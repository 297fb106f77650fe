//! Sixteen bytes at a time with SSE2, thirty-two with AVX2.
//!
//! What every unsafe block here relies on: a load of N bytes at `at` stays inside `src` because `at + N <= src.len()` was
//! tested (or `src.len() >= N` and it is the last N bytes); a store of N bytes at `at` stays inside `dst` because `dst` is
//! at least [`SLACK`](crate::output::SLACK) = 64 bytes longer than `src`; the AVX2 functions are called only after the
//! processor said that it has AVX2. SSE2 is part of x86-64.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
    _mm_set1_epi8, _mm_setzero_si128, _mm_storeu_si128, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8,
    _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_storeu_si256,
};

use super::utf8::{Checker, cut_off};
use super::{BLOCK_ROOM, Blocks, Escapes, Run, portable};

/// One bit for each of sixteen bytes, set where it is special.
#[inline]
fn special(bytes: __m128i) -> u32 {
    // SAFETY: SSE2 is part of x86-64; no memory is touched.
    unsafe {
        let below_space = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x22));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x5c));
        bits(_mm_or_si128(below_space, _mm_or_si128(quote, backslash)))
    }
}

/// The highest bit of each of sixteen bytes.
#[inline]
fn bits(bytes: __m128i) -> u32 {
    // SAFETY: SSE2 is part of x86-64; no memory is touched.
    unsafe { _mm_movemask_epi8(bytes) }.cast_unsigned()
}

/// At most sixteen bytes.
#[inline]
pub(super) fn copy_plain_short(src: &[u8], dst: &mut [u8]) -> Run {
    let (low, high) = short(src);
    let beyond = u32::MAX << src.len();
    // SAFETY: dst has at least SLACK bytes.
    let bytes = unsafe {
        let bytes = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
        _mm_storeu_si128(dst.as_mut_ptr().cast(), bytes);
        bytes
    };
    // Zeros are special bytes, so the padding after the last byte ends the run.
    Run { len: (special(bytes) | beyond).trailing_zeros() as usize, ascii: bits(bytes) == 0 }
}

/// Up to sixteen bytes in two words, zeros behind them. Read as words that overlap, without looking beyond the slice.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most 64")]
fn short(src: &[u8]) -> (u64, u64) {
    let len = src.len();
    if let (Some(first), Some(last)) = (src.first_chunk(), src.last_chunk()) {
        let high = u64::from_le_bytes(*last).unbounded_shr(8 * (16 - len) as u32);
        return (u64::from_le_bytes(*first), high);
    }
    if let (Some(first), Some(last)) = (src.first_chunk(), src.last_chunk()) {
        let last = u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
        return (u64::from(u32::from_le_bytes(*first)) | last, 0);
    }
    match *src {
        [a, b, c] => (u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]), 0),
        [a, b] => (u64::from_le_bytes([a, b, 0, 0, 0, 0, 0, 0]), 0),
        [a] => (u64::from(a), 0),
        _ => (0, 0),
    }
}

pub(super) fn copy_plain(src: &[u8], dst: &mut [u8]) -> Run {
    if src.len() <= 16 {
        return copy_plain_short(src, dst);
    }
    // SAFETY: no memory is touched.
    let mut seen = unsafe { _mm_setzero_si128() };
    let mut at = 0;
    loop {
        // The last vector overlaps the one before it: what was copied there is copied again.
        at = at.min(src.len() - 16);
        // SAFETY: the load ends at src.len() at the latest, the store before dst.len(): see the top of this file.
        let bytes = unsafe {
            let bytes = _mm_loadu_si128(src.as_ptr().add(at).cast());
            _mm_storeu_si128(dst.as_mut_ptr().add(at).cast(), bytes);
            seen = _mm_or_si128(seen, bytes);
            bytes
        };
        let mask = special(bytes);
        if mask != 0 {
            return Run { len: at + mask.trailing_zeros() as usize, ascii: bits(seen) == 0 };
        }
        at += 16;
        if at >= src.len() {
            return Run { len: src.len(), ascii: bits(seen) == 0 };
        }
    }
}

#[inline]
pub(super) fn find_special(src: &[u8]) -> usize {
    find_special_from_short(src, usize::MAX)
}

/// Sixteen bytes at a time, and after `wide` bytes without a find thirty-two where the machine can.
#[inline]
pub(super) fn find_special_from_short(src: &[u8], wide: usize) -> usize {
    if src.len() < 16 {
        return portable::find_special(src);
    }
    // SAFETY: there are sixteen bytes. Most keys and many strings end there.
    let mask = special(unsafe { _mm_loadu_si128(src.as_ptr().cast()) });
    if mask != 0 { mask.trailing_zeros() as usize } else { find_special_behind_short(src, wide) }
}

/// Continues `find_special` when the first sixteen bytes have no special byte.
#[inline(never)]
fn find_special_behind_short(src: &[u8], wide: usize) -> usize {
    let mut at = 16;
    if src.len() == 16 {
        return 16;
    }
    loop {
        at = at.min(src.len() - 16);
        // SAFETY: the load ends at src.len() at the latest.
        let mask = special(unsafe { _mm_loadu_si128(src.as_ptr().add(at).cast()) });
        if mask != 0 {
            return at + mask.trailing_zeros() as usize;
        }
        at += 16;
        if at >= src.len() {
            return src.len();
        }
        if at == wide {
            return at + find_special_wide(&src[at..]);
        }
    }
}

pub(super) fn copy_plain_wide(src: &[u8], dst: &mut [u8]) -> Run {
    if src.len() >= 32 && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, src has 32 bytes, dst 64 more than src.
        unsafe { copy_plain_avx2(src, dst) }
    } else {
        copy_plain(src, dst)
    }
}

pub(super) fn copy_escaped(src: &[u8], dst: &mut [u8], escapes: &Escapes) -> Blocks {
    if src.len() >= 64 && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { copy_escaped_avx2(src, dst, escapes) }
    } else {
        Blocks::NONE
    }
}

pub(super) fn copy_unescaped(src: &[u8], dst: &mut [u8], letters: &[u8; 256]) -> Blocks {
    if src.len() >= 96 && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        unsafe { copy_unescaped_avx2(src, dst, letters) }
    } else {
        Blocks::NONE
    }
}

pub(super) fn find_special_wide(src: &[u8]) -> usize {
    if src.len() >= 32 && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2 and src has 32 bytes.
        unsafe { find_special_avx2(src) }
    } else {
        find_special(src)
    }
}

#[target_feature(enable = "avx2")]
fn special_avx2(bytes: __m256i) -> u32 {
    let below_space = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes);
    let quote = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x22));
    let backslash = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x5c));
    _mm256_movemask_epi8(_mm256_or_si256(below_space, _mm256_or_si256(quote, backslash))).cast_unsigned()
}

/// # Safety
/// `src` has at least 32 bytes, `dst` at least 32 more than `src`.
#[target_feature(enable = "avx2")]
unsafe fn copy_plain_avx2(src: &[u8], dst: &mut [u8]) -> Run {
    let mut seen = _mm256_setzero_si256();
    let mut at = 0;
    loop {
        at = at.min(src.len() - 32);
        // SAFETY: the load ends at src.len() at the latest, the store before dst.len(): see the top of this file.
        let bytes = unsafe {
            let bytes = _mm256_loadu_si256(src.as_ptr().add(at).cast());
            _mm256_storeu_si256(dst.as_mut_ptr().add(at).cast(), bytes);
            bytes
        };
        seen = _mm256_or_si256(seen, bytes);
        let mask = special_avx2(bytes);
        if mask != 0 {
            return Run { len: at + mask.trailing_zeros() as usize, ascii: _mm256_movemask_epi8(seen) == 0 };
        }
        at += 32;
        if at >= src.len() {
            return Run { len: src.len(), ascii: _mm256_movemask_epi8(seen) == 0 };
        }
    }
}

#[target_feature(enable = "avx2")]
fn copy_escaped_avx2(src: &[u8], dst: &mut [u8], escapes: &Escapes) -> Blocks {
    let mut checker = Checker::new();
    let (mut read, mut written) = (0, 0);
    // A block is read from any of its bytes on, 64 bytes at most. It writes no more than 32 escapes of six bytes and, behind
    // them, one vector: 224 bytes.
    while read + 64 <= src.len() && written + BLOCK_ROOM <= dst.len() {
        // SAFETY: see above: 32 bytes on both sides.
        let bytes = unsafe { _mm256_loadu_si256(src.as_ptr().add(read).cast()) };
        unsafe { _mm256_storeu_si256(dst.as_mut_ptr().add(written).cast(), bytes) };
        checker.block(bytes);
        let mut mask = special_avx2(bytes);
        let mut done = 0;
        while mask != 0 {
            let at = mask.trailing_zeros() as usize;
            written += at - done;
            done = at + 1;
            let (escape, len) = &escapes[usize::from(src[read + at])];
            // SAFETY: see above. `at` is below 32, so that 32 bytes behind it are inside `src`. The bytes
            // after the escape are stored again after its end.
            unsafe {
                dst.as_mut_ptr().add(written).cast::<[u8; 8]>().write_unaligned(*escape);
                written += usize::from(*len).min(6);
                let rest = _mm256_loadu_si256(src.as_ptr().add(read + done).cast());
                _mm256_storeu_si256(dst.as_mut_ptr().add(written).cast(), rest);
            }
            mask &= mask - 1;
        }
        written += 32 - done;
        read += 32;
    }
    // Its bytes are not among those that were replaced.
    let cut_off = cut_off(&src[..read]);
    Blocks { read: read - cut_off, written: written - cut_off, valid: checker.valid() }
}

#[target_feature(enable = "avx2")]
fn copy_unescaped_avx2(src: &[u8], dst: &mut [u8], letters: &[u8; 256]) -> Blocks {
    let (mut read, mut written) = (0, 0);
    // A block is read from any of its bytes and from one behind it on: 65 bytes at most. What is written never gets ahead of
    // what is read.
    while read + 96 <= src.len() && written + BLOCK_ROOM <= dst.len() {
        // SAFETY: see above: 32 bytes on both sides.
        let bytes = unsafe { _mm256_loadu_si256(src.as_ptr().add(read).cast()) };
        unsafe { _mm256_storeu_si256(dst.as_mut_ptr().add(written).cast(), bytes) };
        let mut mask = special_avx2(bytes);
        let mut done = 0;
        while mask != 0 {
            let at = mask.trailing_zeros() as usize;
            written += at - done;
            let letter = letters[usize::from(src[read + at + 1])];
            if src[read + at] != b'\\' || letter == 0 {
                return Blocks { read: read + at, written, valid: true };
            }
            done = at + 2;
            // SAFETY: see above. `done` is at most 33. The bytes after the escape are stored again after its
            // letter.
            unsafe {
                *dst.get_unchecked_mut(written) = letter;
                written += 1;
                let rest = _mm256_loadu_si256(src.as_ptr().add(read + done).cast());
                _mm256_storeu_si256(dst.as_mut_ptr().add(written).cast(), rest);
            }
            // The letter itself is not a special byte.
            mask = mask & (mask - 1) & !(2 << at);
        }
        written += done.max(32) - done;
        read += done.max(32);
    }
    Blocks { read, written, valid: true }
}

/// # Safety
/// `src` has at least 32 bytes.
#[target_feature(enable = "avx2")]
unsafe fn find_special_avx2(src: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at = at.min(src.len() - 32);
        // SAFETY: the load ends at src.len() at the latest.
        let mask = special_avx2(unsafe { _mm256_loadu_si256(src.as_ptr().add(at).cast()) });
        if mask != 0 {
            return at + mask.trailing_zeros() as usize;
        }
        at += 32;
        if at >= src.len() {
            return src.len();
        }
    }
}
