//! How many sockets this process may hold.

use std::io;

/// Descriptors that are not client sockets: logs, listeners, epoll and wake-ups of each shard, Redis, webhooks, and
/// some room for HTTP requests.
pub const RESERVED: u64 = 256;

/// Raises the limit of open descriptors as far as the system allows: the hard limit too where the process may.
///
/// Returns the limit now in force.
///
/// # Errors
/// When the system does not tell its limits.
pub fn raise_limit() -> io::Result<u64> {
    /// The kernel's own default for `fs.nr_open`: asking for more fails everywhere.
    const WANTED: u64 = 1_048_576;
    let (soft, hard) = rlimit::Resource::NOFILE.get()?;
    let wanted = hard.max(WANTED);
    if soft >= wanted {
        return Ok(soft);
    }
    // Only a privileged process may raise its hard limit; the others go as far as theirs.
    if rlimit::Resource::NOFILE.set(wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    rlimit::Resource::NOFILE.set(hard, hard)?;
    Ok(hard)
}

/// Sockets that `limit` descriptors leave room for.
pub fn connections_max(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(RESERVED)).unwrap_or(usize::MAX)
}
