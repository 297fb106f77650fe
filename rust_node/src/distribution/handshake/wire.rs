//! Reads and writes the messages of a handshake.
//!
//! Guarantee: no message longer than [`LONGEST`] is read, and no field is read beyond the end of its message.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{HandshakeError, LONGEST, NodeName, Prefix};
use crate::distribution::names;

pub(super) fn put_name(message: &mut Vec<u8>, name: &NodeName) {
    let name = name.to_string();
    // The type of the name limits it to 255 bytes.
    message.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(name.as_bytes());
}

/// A stream of handshake messages.
#[derive(Debug)]
pub(super) struct Wire<S> {
    pub(super) stream: S,
    pub(super) prefix: Prefix,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), HandshakeError> {
        let mut bytes = match self.prefix {
            Prefix::Two => u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec(),
            Prefix::Four => u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec(),
        };
        bytes.extend(message);
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    pub(super) async fn receive(&mut self) -> Result<Vec<u8>, HandshakeError> {
        let length = match self.prefix {
            Prefix::Two => usize::from(self.stream.read_u16().await?),
            Prefix::Four => self.stream.read_u32().await? as usize,
        };
        if length > LONGEST {
            return Err(HandshakeError::TooLong { length });
        }
        let mut message = vec![0; length];
        self.stream.read_exact(&mut message).await?;
        Ok(message)
    }
}

/// The fields of a handshake message, read from its front.
pub(super) struct Fields<'a> {
    pub(super) left: &'a [u8],
    pub(super) expected: &'static str,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HandshakeError> {
        let (taken, left) =
            self.left.split_first_chunk::<N>().ok_or(HandshakeError::Unexpected { expected: self.expected })?;
        self.left = left;
        Ok(*taken)
    }

    pub(super) fn tag(&mut self, tag: u8) -> Result<(), HandshakeError> {
        match self.take()? {
            [got] if got == tag => Ok(()),
            _ => Err(HandshakeError::Unexpected { expected: self.expected }),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, HandshakeError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, HandshakeError> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn name(&mut self) -> Result<NodeName, HandshakeError> {
        let length = usize::from(self.take().map(u16::from_be_bytes)?);
        let bytes = self.left.get(..length).ok_or(HandshakeError::Unexpected { expected: self.expected })?;
        let text = std::str::from_utf8(bytes).map_err(|_| HandshakeError::Unexpected { expected: self.expected })?;
        names::parse(text).map_err(|error| HandshakeError::Name { problem: error.to_string() })
    }
}
