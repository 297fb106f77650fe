//! The limit of open files; every connection is an open file.

use std::cmp::min;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// Listeners, EPMD, look-ups, timers and the standard streams.
const OTHERS: u64 = 64;

/// As [`raise`], with a warning where the hard limit is lower.
pub fn make_room(connections: usize) {
    let needed = needed(connections);
    match raise(connections) {
        Ok(limit) if limit >= needed => {}
        Ok(limit) => warn!(
            limit,
            needed,
            "this node may open fewer files than the connections that it takes need: raise the hard limit (LimitNOFILE=, ulimit -Hn)"
        ),
        Err(error) => warn!(%error, needed, "cannot raise the limit of open files"),
    }
}

/// Raises the soft limit, 1,024 on most systems, to what this number of connections needs, as far as the hard limit
/// allows. Returns the limit.
pub fn raise(connections: usize) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = min(needed(connections), hard);
    if limit <= soft {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    info!(from = soft, to = limit, "raised the limit of open files");
    Ok(limit)
}

fn needed(connections: usize) -> u64 {
    u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS)
}
