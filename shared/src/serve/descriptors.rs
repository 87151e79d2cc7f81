//! How many sockets this process may hold.

use std::io;

use rlimit::Resource;

/// Descriptors that are not for WebSockets: logs, listeners, epoll and wake-ups of the process, Redis, webhooks, and what
/// is left for other connections of a full node.
pub const RESERVED: u64 = 256;

/// Besides, for each shard: its thread's epoll and wake-up, and the ways to both. A process with 1 shard has 17 descriptors
/// open before anybody connects, one with 64 has 269.
const PER_SHARD: u64 = 4;

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
        "{limit} open descriptors are allowed and {reserved} are needed besides connections: raise the limit, as with \
         `ulimit -n 65536`"
    )]
    NoRoom {
        /// The limit in force.
        limit: u64,
        /// How many of them are not for connections.
        reserved: u64,
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

/// Clients that a gateway of so many shards may hold with `limit` descriptors.
///
/// # Errors
/// [`LimitError::NoRoom`].
pub fn connections_max(limit: u64, shards: usize, with_tls: bool) -> Result<usize, LimitError> {
    match room(limit, shards, with_tls) {
        0 => Err(LimitError::NoRoom { limit, reserved: reserved(shards) }),
        room => Ok(room),
    }
}

/// The same for TCP connections of every sort.
pub fn sockets_max(limit: u64, shards: usize, with_tls: bool) -> usize {
    room(limit.saturating_add(HTTP_ROOM), shards, with_tls)
}

fn room(limit: u64, shards: usize, with_tls: bool) -> usize {
    let room = limit.saturating_sub(reserved(shards)) / if with_tls { PER_TLS_CONNECTION } else { 1 };
    usize::try_from(room).unwrap_or(usize::MAX)
}

fn reserved(shards: usize) -> u64 {
    let shards = u64::try_from(shards).unwrap_or(u64::MAX);
    shards.saturating_mul(PER_SHARD).saturating_add(RESERVED)
}

/// What every process needs, those without shards too.
fn with_room(limit: u64) -> Result<u64, LimitError> {
    connections_max(limit, 0, false).map(|_| limit)
}

#[cfg(test)]
mod tests;
