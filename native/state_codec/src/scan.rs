//! Finds the bytes that a JSON string must escape: the quote, the backslash and everything below the space.
//!
//! Guarantee: every kernel gives the same answer for every input (tested against each other and against a byte-by-byte
//! reference). Which one runs depends on the machine and on the length: short texts stay on the path that needs no call.

mod portable;
#[cfg(target_arch = "x86_64")]
mod utf8;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::output::SLACK;

/// From this many bytes on, the widest vectors are faster despite the cost of the call.
const WIDE: usize = 64;

/// The run before the first special byte, or before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub len: usize,
    /// Whether all of them are certain to be ASCII.
    pub ascii: bool,
}

/// The escape of each byte below 0x60, and its length: at most 6, and 0 for a byte that is not special.
pub type Escapes = [([u8; 8], u8); 0x60];

/// The most that [`copy_escaped`] may write for a block.
pub const BLOCK_ROOM: usize = 256;

/// The result for whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// How many bytes were read.
    pub read: usize,
    /// How many bytes were written for them.
    pub written: usize,
    /// Whether the bytes read are UTF-8. Not checked when unescaping, where that is known.
    pub valid: bool,
}

impl Blocks {
    const NONE: Blocks = Blocks { read: 0, written: 0, valid: true };
}

/// One way to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Eight bytes at a time in an integer: any machine.
    Portable,
    /// Sixteen bytes at a time: every x86-64.
    Sse2,
    /// Thirty-two bytes at a time: x86-64 that has AVX2.
    Avx2,
}

impl Kernel {
    /// The kernels this machine can run.
    pub fn available() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            kernels.push(Kernel::Sse2);
            if std::is_x86_feature_detected!("avx2") {
                kernels.push(Kernel::Avx2);
            }
        }
        kernels
    }

    /// [`copy_plain`] by this kernel; a machine that lacks it uses the next smaller one.
    pub fn copy_plain(self, src: &[u8], dst: &mut [u8]) -> Run {
        assert!(dst.len() >= src.len() + SLACK, "the caller reserves the slack");
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => x86::copy_plain_wide(src, dst),
            #[cfg(target_arch = "x86_64")]
            Kernel::Sse2 => x86::copy_plain(src, dst),
            _ => portable::copy_plain(src, dst),
        }
    }

    /// [`copy_escaped`] by this kernel; only the widest one has its own implementation.
    pub fn copy_escaped(self, src: &[u8], dst: &mut [u8], escapes: &Escapes) -> Blocks {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => x86::copy_escaped(src, dst, escapes),
            _ => Blocks::NONE,
        }
    }

    /// [`copy_unescaped`] by this kernel; only the widest one has its own implementation.
    pub fn copy_unescaped(self, src: &[u8], dst: &mut [u8], letters: &[u8; 256]) -> Blocks {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => x86::copy_unescaped(src, dst, letters),
            _ => Blocks::NONE,
        }
    }

    /// [`find_special`] by this kernel; a machine that lacks it uses the next smaller one.
    pub fn find_special(self, src: &[u8]) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => x86::find_special_wide(src),
            #[cfg(target_arch = "x86_64")]
            Kernel::Sse2 => x86::find_special(src),
            _ => portable::find_special(src),
        }
    }
}

/// Copies `src` to the start of `dst` up to its first special byte. Bytes of `dst` after that may be
/// overwritten.
///
/// # Panics
/// When `dst` is not [`SLACK`] longer than `src`.
#[inline]
pub fn copy_plain(src: &[u8], dst: &mut [u8]) -> Run {
    assert!(dst.len() >= src.len() + SLACK, "the caller reserves the slack");
    #[cfg(target_arch = "x86_64")]
    {
        if src.len() <= 16 {
            x86::copy_plain_short(src, dst)
        } else if src.len() < WIDE {
            x86::copy_plain(src, dst)
        } else {
            x86::copy_plain_wide(src, dst)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable::copy_plain(src, dst)
}

/// Copies `src` to the start of `dst`, special bytes replaced, as long as whole blocks are left on both
/// sides. It may stop anywhere except inside a character, or not start at all. The caller continues from
/// there, with more room or with [`copy_plain`]. Bytes after the written ones in `dst` may be overwritten.
#[inline]
pub fn copy_escaped(src: &[u8], dst: &mut [u8], escapes: &Escapes) -> Blocks {
    #[cfg(target_arch = "x86_64")]
    {
        x86::copy_escaped(src, dst, escapes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    Blocks::NONE
}

/// Copies `src` to the start of `dst`, the escapes of `letters` replaced with what their letters stand for,
/// up to any other special byte, as long as whole blocks are left on both sides: [`BLOCK_ROOM`] is enough for
/// one. It may stop anywhere else, or not start, but never inside an escape. Bytes of `dst` after the written
/// ones may be overwritten.
#[inline]
pub fn copy_unescaped(src: &[u8], dst: &mut [u8], letters: &[u8; 256]) -> Blocks {
    #[cfg(target_arch = "x86_64")]
    {
        x86::copy_unescaped(src, dst, letters)
    }
    #[cfg(not(target_arch = "x86_64"))]
    Blocks::NONE
}

/// The index of the first special byte of `src`, or its length.
#[inline]
pub fn find_special(src: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if src.len() < 16 { portable::find_special(src) } else { x86::find_special_from_short(src, WIDE) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable::find_special(src)
}
