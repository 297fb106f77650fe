//! Ctrl-C and SIGTERM end a run gracefully: each wait checks a flag and returns an error, and dropping the
//! cluster ends its nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens to SIGINT, SIGTERM and SIGHUP of this process from now on. Once per process.
    pub fn listen() -> Result<Self> {
        let interrupt = Self::default();
        let flag = interrupt.clone();
        ctrlc::set_handler(move || flag.request()).map_err(|error| Error::Io {
            doing: "installing the Ctrl-C handler".into(),
            source: std::io::Error::other(error),
        })?;
        Ok(interrupt)
    }

    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// An error once the run has been asked to end.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}
