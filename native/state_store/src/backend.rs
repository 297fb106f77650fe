//! The three kinds of store behind one set of requests, each sent once.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::directory::Directory;
use crate::memory::Memory;
use crate::object::Target;
use crate::remote::Remote;
use crate::remote::etags::Etags;
use crate::{Condition, Error, Object, Page};

pub(crate) enum Backend {
    Remote(Remote),
    Directory(Arc<Directory>),
    Memory(Arc<Memory>),
}

impl Backend {
    pub(crate) async fn get(&self, key: &str, consistent: bool) -> Result<Object, Error> {
        match self {
            Self::Remote(remote) => remote.get(key, consistent).await,
            Self::Directory(directory) => directory.get(key).await,
            Self::Memory(memory) => memory.get(key),
        }
    }

    pub(crate) async fn put(&self, key: &str, body: Bytes, condition: &Condition) -> Result<String, Error> {
        match self {
            Self::Remote(remote) => remote.put(key, body, condition).await,
            Self::Directory(directory) => directory.put(key, body, condition.clone()).await,
            Self::Memory(memory) => memory.put(key, body, condition),
        }
    }

    pub(crate) fn etags(&self) -> Option<&Etags> {
        match self {
            Self::Remote(remote) => remote.etags(),
            Self::Directory(_) | Self::Memory(_) => None,
        }
    }

    pub(crate) fn fetch_credentials(&self, started: Instant) -> bool {
        matches!(self, Self::Remote(remote) if remote.fetch_credentials(started))
    }

    pub(crate) fn needs_tombstones(&self) -> bool {
        matches!(self, Self::Remote(remote) if !remote.deletes_atomically())
    }

    pub(crate) async fn delete(&self, key: &str, target: Target<'_>) -> Result<(), Error> {
        match self {
            Self::Remote(remote) => remote.delete(key, target).await,
            Self::Directory(directory) => directory.delete(key, target).await,
            Self::Memory(memory) => memory.delete(key, target),
        }
    }

    pub(crate) async fn list(&self, prefix: &str, after: Option<String>, max: usize) -> Result<Page, Error> {
        match self {
            Self::Remote(remote) => remote.list(prefix, after, max).await,
            Self::Directory(directory) => directory.list(prefix, after, max).await,
            Self::Memory(memory) => Ok(memory.list(prefix, after.as_deref(), max)),
        }
    }
}
