//! The limit of open file descriptors, and the number of connections that it allows.

use std::io;

use rlimit::Resource;

/// Descriptors that are reserved for other uses than WebSockets: logs, listeners, epoll, Redis, webhooks, and the
/// HTTP connections of a full node.
pub const RESERVED: u64 = 256;

/// Descriptors that each shard needs: the epoll instance and the wake-up event of its thread, and a copy of each.
///
/// Without connections, a process with 1 shard has 17 open descriptors, and one with 64 shards has 269.
const PER_SHARD: u64 = 4;

/// The part of [`RESERVED`] for other connections on a node that is full of WebSockets: HTTP requests, and clients that
/// are refused because the node is full.
const HTTP_ROOM: u64 = 128;

/// The reason why a process cannot serve connections.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The system does not report its limits.
    #[error("cannot read the limit of open descriptors")]
    Unknown(#[source] io::Error),
    /// All allowed descriptors are reserved for other uses than connections.
    #[error(
        "the limit of {limit} open descriptors leaves none for connections, because {reserved} are reserved for other \
         uses; raise the limit, for example with `ulimit -n 65536`"
    )]
    NoRoom {
        /// The limit in force.
        limit: u64,
        /// The number of descriptors that are reserved for other uses.
        reserved: u64,
    },
}

/// Raises the limit of open descriptors as far as the system allows, and returns the resulting limit.
///
/// A privileged process also raises its hard limit. A limit that cannot be raised stays as it is.
///
/// # Errors
/// [`LimitError`].
pub fn raise_limit() -> Result<u64, LimitError> {
    /// The default of the kernel for `fs.nr_open`. A higher limit is refused.
    const TARGET: u64 = 1_048_576;
    let (soft, hard) = Resource::NOFILE.get().map_err(LimitError::Unknown)?;
    let target = hard.max(TARGET);
    if soft >= target {
        return with_room(soft);
    }
    // Only a privileged process may raise its hard limit. Other processes raise the soft limit to the hard limit.
    if Resource::NOFILE.set(target, target).is_ok() {
        return with_room(target);
    }
    // On macOS, the hard limit is infinity, and the kernel has another limit. This function knows it.
    with_room(rlimit::increase_nofile_limit(hard).unwrap_or(soft))
}

/// Descriptors of one TLS connection: its own socket, and a pair of sockets between the connection and its shard.
const PER_TLS_CONNECTION: u64 = 3;

/// Returns the maximum number of clients of a gateway with `shards` shards and `limit` descriptors.
///
/// # Errors
/// [`LimitError::NoRoom`].
pub fn connections_max(limit: u64, shards: usize, with_tls: bool) -> Result<usize, LimitError> {
    match room(limit, shards, with_tls) {
        0 => Err(LimitError::NoRoom { limit, reserved: reserved(shards) }),
        room => Ok(room),
    }
}

/// Returns the maximum number of TCP connections of every kind.
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

/// Returns the limit if it has room for connections of a process without shards.
fn with_room(limit: u64) -> Result<u64, LimitError> {
    connections_max(limit, 0, false).map(|_| limit)
}

#[cfg(test)]
mod tests;
