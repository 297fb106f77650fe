//! The files of a run on this machine. They are removed at the end, except the logs of a failed run and the
//! files that the caller named.

use std::fs;
use std::path::PathBuf;

use crate::random::hex;
use crate::store::Store;
use crate::{Error, Result};

#[derive(Debug, Clone)]
pub struct Paths {
    pub logs: PathBuf,
    pub scratch: PathBuf,
    /// Distinguishes the objects of this run from those of other runs at the same URL.
    pub run: String,
}

impl Paths {
    pub fn new(logs: PathBuf, scratch: PathBuf) -> Result<Self> {
        Ok(Self { logs, scratch, run: hex(4)? })
    }

    /// The URL of the store of one column, a new folder for each; `None` for the simulated store.
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

/// Directories of a run that are removed with it.
#[derive(Debug)]
pub struct TempDir {
    paths: Paths,
    logs: tempfile::TempDir,
    _scratch: tempfile::TempDir,
}

impl TempDir {
    /// New directories, whose names begin with `prefix`.
    pub fn new(prefix: &str) -> Result<Self> {
        let directory = |what| {
            let made = tempfile::Builder::new().prefix(prefix).tempdir();
            made.map_err(Error::io(format!("creating a directory for {what}")))
        };
        let (logs, scratch) = (directory("the nodes' logs")?, directory("the store")?);
        let paths = Paths::new(logs.path().to_owned(), scratch.path().to_owned())?;
        Ok(Self { paths, logs, _scratch: scratch })
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Keeps the logs. Returns their path.
    pub fn keep_logs(self) -> String {
        format!("the nodes' logs are in {}", self.logs.keep().display())
    }

    /// Adds the logs of the nodes to an error of a run that involved nodes.
    pub fn explained(self, error: Error) -> Error {
        if error.is_from_before_the_nodes() {
            return error;
        }
        Error::Explained { reason: error.in_full(), logs: self.keep_logs() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_kept_when_nodes_were_involved_in_the_error() {
        let logs = |paths: &TempDir| paths.paths().logs.clone();
        let (gone, kept) = (TempDir::new("handoff-test-").unwrap(), TempDir::new("handoff-test-").unwrap());
        let (gone_logs, kept_logs) = (logs(&gone), logs(&kept));
        assert!(matches!(gone.explained(Error::Interrupted), Error::Interrupted));
        assert!(!gone_logs.exists());

        let explained = kept.explained(Error::io("reading")(std::io::ErrorKind::NotFound.into())).to_string();
        assert!(explained.starts_with("reading: ") && explained.ends_with(kept_logs.to_str().unwrap()), "{explained}");
        std::fs::remove_dir_all(kept_logs).unwrap();
    }

    #[test]
    fn every_column_has_its_own_store() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { logs: dir.path().into(), scratch: dir.path().into(), run: "ab12".into() };
        let first = paths.store_url(&Store::Directory, "naive").unwrap().unwrap();
        let second = paths.store_url(&Store::Directory, "handoff").unwrap().unwrap();
        assert_ne!(first, second);
        assert!(dir.path().join("store/naive").is_dir());

        let s3 = Store::Url { url: "s3://bucket/x".into() };
        assert_eq!(paths.store_url(&s3, "naive").unwrap().unwrap(), "s3://bucket/x/handoff-demo-ab12/naive");
    }
}
