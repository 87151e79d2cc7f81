//! The directory of fallback sessions: which node has which session, across the cluster.
//!
//! Requests of a fallback session may reach any node, which forwards them to the node that has the session.

pub mod memory;
pub mod redis;

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use memory::MemoryDirectory;
pub use redis::RedisDirectory;

/// How long an entry is valid after the last claim. The entries of a crashed node expire.
pub const TTL: Duration = Duration::from_secs(60);

/// How often a node must claim its sessions again.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(20);

/// The error of a directory that cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DirectoryError(Box<dyn Error + Send + Sync>);

/// The directory of fallback sessions. Nodes are identified by their name, which contains their address.
pub trait Directory: Send + Sync {
    /// Claims sessions for `node`, unless another node has them. Returns the node that has each session.
    ///
    /// `former` is a node that is known not to have the sessions. Its entries are replaced.
    ///
    /// # Errors
    /// [`DirectoryError`] if some sessions were not claimed.
    fn claim<'a>(
        &'a self,
        node: &'a str,
        sessions: &'a [String],
        former: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>>;

    /// Returns the node that has a session, if any.
    ///
    /// # Errors
    /// [`DirectoryError`] if the directory cannot be read.
    fn holder<'a>(&'a self, session: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>>;

    /// Removes the entry of a session if `node` has it.
    ///
    /// # Errors
    /// [`DirectoryError`] if the entry may still exist.
    fn release<'a>(&'a self, node: &'a str, session: &'a str) -> BoxFuture<'a, Result<(), DirectoryError>>;

    /// Returns the address of this host at which other nodes probably reach it.
    ///
    /// # Errors
    /// If the address cannot be determined.
    fn local_address(&self) -> BoxFuture<'_, io::Result<IpAddr>>;
}

#[cfg(test)]
mod tests;
