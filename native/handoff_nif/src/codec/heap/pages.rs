//! Large pages for large outputs: mapping five megabytes in pages of four kilobytes takes longer than filling them.
//!
//! Guarantee: only a hint to the operating system. Without large pages, nothing changes.

/// Bytes of a large page.
#[cfg(target_os = "linux")]
const LARGE: usize = 2 * 1024 * 1024;

/// Asks for large pages where `memory` has whole ones.
#[cfg(target_os = "linux")]
pub fn prefer_large(memory: &mut [u8]) {
    let start = memory.as_ptr().align_offset(LARGE);
    let len = memory.len().saturating_sub(start) / LARGE * LARGE;
    if let Some(pages) = memory.get_mut(start..start + len).filter(|pages| !pages.is_empty()) {
        // SAFETY: the pages are ours alone, and the advice does not change what is in them. A refusal changes nothing.
        unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_HUGEPAGE) };
    }
}

/// Other systems decide by themselves.
#[cfg(not(target_os = "linux"))]
pub fn prefer_large(_memory: &mut [u8]) {}
