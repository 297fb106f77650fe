//! Where a run writes on this machine. All of it is gone when the run is over, but for the logs of one that failed and what
//! the caller named.

use std::fs;
use std::path::PathBuf;

use crate::random::hex;
use crate::store::Store;
use crate::{Error, Result};

/// The directories of a run.
#[derive(Debug, Clone)]
pub struct Places {
    /// What nodes say.
    pub logs: PathBuf,
    /// Everything else.
    pub scratch: PathBuf,
    /// Tells this run's objects from those of others at the same URL.
    pub run: String,
}

impl Places {
    /// These directories, for a run of its own.
    pub fn new(logs: PathBuf, scratch: PathBuf) -> Result<Self> {
        Ok(Self { logs, scratch, run: hex(4)? })
    }

    /// The URL of the store of one column: a fresh folder for each. `None` for the simulated store.
    pub fn store_url(&self, store: &Store, column: &str) -> Result<Option<String>> {
        match store {
            Store::Simulated { .. } => Ok(None),
            Store::Url { url } => {
                let url = format!("{url}/handoff-demo-{}/{column}", self.run);
                if let Some(directory) = url.strip_prefix("file://") {
                    fs::create_dir_all(directory).map_err(Error::io(format!("making the directory {directory}")))?;
                }
                Ok(Some(url))
            }
            Store::Directory => {
                let directory = self.scratch.join("store").join(column);
                fs::create_dir_all(&directory)
                    .map_err(Error::io(format!("making the directory {}", directory.display())))?;
                let path =
                    directory.to_str().ok_or_else(|| Error::protocol("a temporary directory that is not UTF-8"))?;
                Ok(Some(format!("file://{path}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_store_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { logs: dir.path().into(), scratch: dir.path().into(), run: "ab12".into() };
        let first = places.store_url(&Store::Directory, "naive").unwrap().unwrap();
        let second = places.store_url(&Store::Directory, "handoff").unwrap().unwrap();
        assert_ne!(first, second);
        assert!(dir.path().join("store/naive").is_dir());

        let s3 = Store::Url { url: "s3://bucket/x".into() };
        assert_eq!(places.store_url(&s3, "naive").unwrap().unwrap(), "s3://bucket/x/handoff-demo-ab12/naive");
    }
}
