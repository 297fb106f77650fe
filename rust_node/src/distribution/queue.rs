//! The queue of frames to one peer, bounded in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    #[error("not connected")]
    NotConnected,
    /// The peer does not read. Its connection is ended.
    #[error("the peer does not read")]
    Full,
    #[error("the term cannot be encoded")]
    Encode,
}

/// The sender's end of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    unwritten: Arc<AtomicUsize>,
    limit: usize,
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) frames: mpsc::UnboundedReceiver<Vec<u8>>,
    unwritten: Arc<AtomicUsize>,
}

/// A queue for at most `limit` bytes.
pub(super) fn queue(limit: usize) -> (Queue, Frames) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let unwritten = Arc::new(AtomicUsize::new(0));
    let frames = Frames { frames: receiver, unwritten: Arc::clone(&unwritten) };
    (Queue { frames: sender, unwritten, limit }, frames)
}

impl Queue {
    /// Queues a frame: `Full` when the queue would exceed its limit, `NotConnected` when the connection has ended.
    pub(super) fn push(&self, frame: Vec<u8>) -> Result<(), SendError> {
        let length = frame.len();
        if self.unwritten.fetch_add(length, Ordering::AcqRel) + length > self.limit {
            self.unwritten.fetch_sub(length, Ordering::AcqRel);
            return Err(SendError::Full);
        }
        self.frames.send(frame).map_err(|_ended| SendError::NotConnected)
    }

    /// True when all frames were written to the socket.
    pub(super) fn is_empty(&self) -> bool {
        self.unwritten.load(Ordering::Acquire) == 0
    }
}

impl Frames {
    pub(super) fn written(&self, bytes: usize) {
        self.unwritten.fetch_sub(bytes, Ordering::AcqRel);
    }
}
