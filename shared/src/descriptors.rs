//! How many sockets this process may hold.

use std::io;

use rlimit::Resource;

/// Descriptors that are not for WebSockets: logs, listeners, epoll and wake-ups of each shard, Redis, webhooks, and
/// what is left for other connections of a full node.
pub const RESERVED: u64 = 256;

/// Of these, what is left for other connections on a node that is full of WebSockets: HTTP requests, and clients that are
/// told that it is full.
const HTTP_ROOM: u64 = 128;

/// Why a process cannot hold sockets.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The system does not tell its limits.
    #[error("cannot learn how many descriptors are allowed")]
    Unknown(#[source] io::Error),
    /// All that is allowed is needed for other things than clients.
    #[error(
        "{limit} open descriptors are allowed and {RESERVED} are needed besides connections: raise the limit, as with \
         `ulimit -n 65536`"
    )]
    NoRoom {
        /// The limit in force.
        limit: u64,
    },
}

/// Raises the limit of open descriptors as far as the system allows: the hard limit too where the process may. A limit
/// that cannot be raised stays as it is.
///
/// Returns the limit now in force.
///
/// # Errors
/// [`LimitError`].
pub fn raise_limit() -> Result<u64, LimitError> {
    /// The kernel's own default for `fs.nr_open`: asking for more fails everywhere.
    const WANTED: u64 = 1_048_576;
    let (soft, hard) = Resource::NOFILE.get().map_err(LimitError::Unknown)?;
    let wanted = hard.max(WANTED);
    if soft >= wanted {
        return with_room(soft);
    }
    // Only a privileged process may raise its hard limit; the others go as far as theirs.
    if Resource::NOFILE.set(wanted, wanted).is_ok() {
        return with_room(wanted);
    }
    // Where the hard limit says infinity, as on macOS, the kernel has another one, which this call knows.
    with_room(rlimit::increase_nofile_limit(hard).unwrap_or(soft))
}

/// Descriptors of one connection that is encrypted here: its own, and a pair between it and its shard.
const PER_TLS_CONNECTION: u64 = 3;

/// Connections that `limit` descriptors leave room for.
pub fn connections_max(limit: u64, with_tls: bool) -> usize {
    let room = limit.saturating_sub(RESERVED) / if with_tls { PER_TLS_CONNECTION } else { 1 };
    usize::try_from(room).unwrap_or(usize::MAX)
}

/// Connections of every sort that `limit` descriptors leave room for.
pub fn sockets_max(limit: u64, with_tls: bool) -> usize {
    connections_max(limit.saturating_add(HTTP_ROOM), with_tls)
}

fn with_room(limit: u64) -> Result<u64, LimitError> {
    if connections_max(limit, false) == 0 { Err(LimitError::NoRoom { limit }) } else { Ok(limit) }
}

#[cfg(test)]
mod tests;
