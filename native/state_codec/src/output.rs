//! The output buffer of an encoding: it grows, up to a limit.
//!
//! Guarantee: after [`Output::reserve`] returned `Ok`, that many bytes and [`SLACK`] more can be written without growing.
//! With the slack, a scan can store whole vectors and an escape eight bytes without a check of the room left.

use crate::WriteError;

/// Bytes after every reservation that writers may overwrite.
pub const SLACK: usize = 64;

/// Initialised bytes that can grow.
pub trait Storage: AsRef<[u8]> + AsMut<[u8]> {
    /// Makes the storage at least `len` bytes long and keeps its content.
    fn grow(&mut self, len: usize) -> Result<(), WriteError>;
}

impl Storage for Vec<u8> {
    fn grow(&mut self, len: usize) -> Result<(), WriteError> {
        let missing = len.saturating_sub(self.len());
        self.try_reserve(missing).map_err(|_| WriteError::OutOfMemory)?;
        self.resize(self.capacity(), 0);
        Ok(())
    }
}

/// Bytes written so far, in storage of any kind.
#[derive(Debug)]
pub struct Output<S> {
    storage: S,
    len: usize,
    limit: usize,
    /// The usable part of the storage: all of it, or the limit plus the slack.
    room: usize,
}

impl<S: Storage> Output<S> {
    /// An empty output that refuses to become longer than `limit` bytes.
    pub fn new(storage: S, limit: usize) -> Self {
        let room = storage.as_ref().len().min(limit.saturating_add(SLACK));
        Output { storage, len: 0, limit, room }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn written(&self) -> &[u8] {
        &self.storage.as_ref()[..self.len]
    }

    /// Returns the storage, and how many of its bytes were written.
    pub fn into_parts(self) -> (S, usize) {
        (self.storage, self.len)
    }

    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `more` bytes and the slack after them.
    #[inline]
    pub fn reserve(&mut self, more: usize) -> Result<(), WriteError> {
        let needed = self.len.saturating_add(more).saturating_add(SLACK);
        if needed <= self.room { Ok(()) } else { self.grow(needed) }
    }

    /// As [`reserve`](Self::reserve), and returns the room. A writer that knows its length writes there and calls
    /// `advance` once: writing single bytes through the output loads and stores its length for each.
    #[inline]
    pub fn room(&mut self, more: usize) -> Result<&mut [u8], WriteError> {
        self.reserve(more)?;
        Ok(self.spare())
    }

    /// Writes `bytes`; the caller has reserved them.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        copy_small(bytes, self.spare());
        self.len += bytes.len();
    }

    /// Writes one byte; the caller has reserved it.
    #[inline]
    pub fn put_byte(&mut self, byte: u8) {
        self.storage.as_mut()[self.len] = byte;
        self.len += 1;
    }

    /// How many bytes fit before the storage has to grow, including the slack.
    #[inline]
    pub fn left(&self) -> usize {
        self.storage.as_ref().len() - self.len
    }

    /// The room after the bytes written so far, for a scan that stores as it goes.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.storage.as_mut()[self.len..]
    }

    /// Counts `len` bytes of [`spare`](Self::spare) as written.
    #[inline]
    pub fn advance(&mut self, len: usize) {
        self.len += len;
        debug_assert!(self.len <= self.storage.as_ref().len(), "advanced past the storage");
    }

    #[cold]
    fn grow(&mut self, needed: usize) -> Result<(), WriteError> {
        let most = self.limit.saturating_add(SLACK);
        if needed > most {
            return Err(WriteError::TooLarge);
        }
        // Doubling keeps the bytes that are copied below the bytes that are written.
        self.storage.grow(needed.max(self.room.saturating_mul(2).min(most)))?;
        self.room = self.storage.as_ref().len().min(most);
        Ok(())
    }
}

/// Copies `src` to the start of `dst`; up to 64 bytes without a call, as words that overlap.
///
/// # Panics
/// When `dst` is shorter than `src`.
#[inline]
pub fn copy_small(src: &[u8], dst: &mut [u8]) {
    let dst = &mut dst[..src.len()];
    match src.len() {
        0 => {}
        1 => dst[0] = src[0],
        2..4 => overlap::<2>(src, dst),
        4..8 => overlap::<4>(src, dst),
        8..16 => overlap::<8>(src, dst),
        16..=64 => {
            for (src, dst) in std::iter::zip(src.chunks_exact(16), dst.chunks_exact_mut(16)) {
                dst.copy_from_slice(src);
            }
            overlap::<16>(src, dst);
        }
        _ => dst.copy_from_slice(src),
    }
}

/// The first and the last `N` bytes.
#[inline]
fn overlap<const N: usize>(src: &[u8], dst: &mut [u8]) {
    if let (Some(first), Some(last)) = (src.first_chunk::<N>(), src.last_chunk::<N>()) {
        let (first, last) = (*first, *last);
        dst[..N].copy_from_slice(&first);
        dst[src.len() - N..].copy_from_slice(&last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_grows_up_to_its_limit_and_then_returns_an_error() {
        let mut output = Output::new(Vec::new(), 1_000);
        for _ in 0..10 {
            output.reserve(100).expect("below the limit");
            output.put(&[b'x'; 100]);
        }
        assert_eq!(output.reserve(1), Err(WriteError::TooLarge));
        assert_eq!(output.written(), [b'x'; 1_000]);
    }

    #[test]
    fn a_failed_allocation_is_an_error() {
        let mut output = Output::new(Vec::new(), usize::MAX);
        let bytes = isize::MAX as usize;
        assert!(matches!(output.reserve(bytes), Err(WriteError::OutOfMemory)));
        output.reserve(1).expect("the output is still usable");
    }

    #[test]
    fn truncated_bytes_are_removed_and_earlier_ones_kept() {
        let mut output = Output::new(Vec::new(), 100);
        output.reserve(8).expect("room");
        output.put(b"keep");
        output.put_byte(b'!');
        output.truncate(4);
        output.put(b"01");
        assert_eq!(output.into_parts().0[..6], *b"keep01");
    }
}
