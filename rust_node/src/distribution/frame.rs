//! Frames: a length of four bytes, then that many bytes. An empty frame is a tick.
//!
//! Guarantee: nothing is allocated for a frame that is longer than the limit. A frame with an unknown first
//! byte ends the connection, because the rest of the stream cannot be trusted.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The first byte of a frame that carries a message ("pass through": no distribution header).
pub const PASS_THROUGH: u8 = 112;
/// The capacity that is kept between frames. Larger buffers are released.
const KEEP: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An empty frame, which shows that the peer is alive.
    Tick,
    /// A control term and, for some operations, a payload term.
    Message(&'a [u8]),
}

/// Why a frame could not be read. The stream cannot be used afterwards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("a frame of {length} bytes, takes at most {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("a frame of type {got}, takes {PASS_THROUGH}")]
    Type { got: u8 },
    #[error("{source}")]
    Io {
        #[from]
        source: std::io::Error,
    },
}

/// Reads one frame into `buffer`.
pub async fn read<'a, R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &'a mut Vec<u8>,
    limit: usize,
) -> Result<Frame<'a>, FrameError> {
    let length = reader.read_u32().await? as usize;
    if length == 0 {
        return Ok(Frame::Tick);
    }
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if buffer.capacity() > KEEP && length <= KEEP {
        *buffer = Vec::with_capacity(KEEP);
    }
    buffer.resize(length, 0);
    reader.read_exact(buffer).await?;
    match buffer.split_first() {
        Some((&PASS_THROUGH, message)) => Ok(Frame::Message(message)),
        Some((&got, _)) => Err(FrameError::Type { got }),
        None => Ok(Frame::Tick),
    }
}

/// Builds a frame around the bytes that `write` writes.
pub fn build<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Vec<u8>, E> {
    let mut frame = vec![0, 0, 0, 0, PASS_THROUGH];
    write(&mut frame)?;
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_one(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut buffer = Vec::new();
        match read(&mut &*bytes, &mut buffer, 10).await? {
            Frame::Tick => Ok(vec![]),
            Frame::Message(message) => Ok(message.to_vec()),
        }
    }

    #[tokio::test]
    async fn a_frame_longer_than_the_limit_is_refused_before_it_is_read() {
        assert!(
            matches!(read_one(&[255, 255, 255, 255]).await, Err(FrameError::TooLong { length, .. }) if length > 1 << 31)
        );
        assert!(matches!(read_one(&[0, 0, 0, 11]).await, Err(FrameError::TooLong { length: 11, limit: 10 })));
    }

    #[tokio::test]
    async fn ticks_messages_and_unknown_types_are_distinguished() {
        assert_eq!(read_one(&[0, 0, 0, 0]).await.expect("a tick"), Vec::<u8>::new());
        assert_eq!(read_one(&[0, 0, 0, 3, 112, 1, 2]).await.expect("a message"), [1, 2]);
        assert!(matches!(read_one(&[0, 0, 0, 2, 131, 68]).await, Err(FrameError::Type { got: 131 })));
    }

    #[tokio::test]
    async fn a_frame_that_was_built_can_be_read() {
        let frame = build::<()>(|out| {
            out.extend([7, 8]);
            Ok(())
        });
        assert_eq!(read_one(&frame.expect("built")).await.expect("read"), [7, 8]);
    }
}
