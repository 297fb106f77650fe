//! The threads that requests run on.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Requests mostly wait for the network, so two threads handle thousands of them a second.
const WORKERS: usize = 2;
/// File operations and DNS look-ups block, so they run on threads of their own, which end when they have nothing to do.
/// More than the requests that several stores have in flight with the default bounds: an urgent one finds a thread while
/// writes of states wait for locks and disks.
const MAX_BLOCKING: usize = 512;

/// The runtime of this process: the first call starts it, and it never stops. The operating system may create
/// no threads.
pub fn shared_runtime() -> std::io::Result<Handle> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle().clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MAX_BLOCKING)
        .thread_name("state_store")
        .enable_all()
        .build()?;
    // Of two concurrent first calls one runtime is kept; the other stops at once.
    if let Err(runtime) = RUNTIME.set(runtime) {
        runtime.shutdown_background();
    }
    RUNTIME.get().map(|runtime| runtime.handle().clone()).ok_or_else(|| std::io::Error::other("no runtime"))
}
