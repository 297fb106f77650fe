//! The limit of open files; every connection is an open file.

use std::cmp::min;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// Listeners, EPMD, look-ups, timers and the standard streams.
const OTHERS: u64 = 64;

/// Raises the soft limit, 1,024 on most systems, to what this number of connections needs, as far as the hard limit
/// allows.
pub fn make_room(connections: usize) {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let limit = min(needed, hard);
        if limit <= soft {
            return Ok(soft);
        }
        setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
        info!(from = soft, to = limit, "raised the limit of open files");
        Ok(limit)
    });
    match raised {
        Ok(limit) if limit >= needed => {}
        Ok(limit) => warn!(
            limit,
            needed,
            "this node may open fewer files than the connections that it takes need: raise the hard limit (LimitNOFILE=, ulimit -Hn)"
        ),
        Err(error) => warn!(%error, needed, "cannot raise the limit of open files"),
    }
}
