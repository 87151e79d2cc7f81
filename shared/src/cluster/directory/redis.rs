//! The directory of a cluster, in Redis. Each session is a key that expires.

use std::io;
use std::net::IpAddr;

use futures_util::future::BoxFuture;

use super::{Directory, DirectoryError, TTL};
use crate::cluster::redis::link::LinkError;
use crate::cluster::redis::{Link, scripts};

/// The number of sessions that one command claims.
const BATCH: usize = 200;

/// A directory in Redis.
#[derive(Clone)]
pub struct RedisDirectory {
    link: Link,
}

impl RedisDirectory {
    /// Creates the directory of this cluster.
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    async fn claim_now(
        &self,
        node: &str,
        sessions: &[String],
        former: Option<&str>,
    ) -> Result<Vec<String>, DirectoryError> {
        let keys = self.link.keys();
        // The keys of one command must share a partition.
        let mut order: Vec<_> = sessions.iter().map(|name| keys.fallback_session_partition(name)).zip(0..).collect();
        order.sort_unstable();
        let mut holders = vec![String::new(); sessions.len()];
        let same = |a: &(u32, usize), b: &(u32, usize)| a.0 == b.0;
        for batch in order.chunk_by(same).flat_map(|partition| partition.chunks(BATCH)) {
            let mut call = scripts::claim_sessions().prepare_invoke();
            for (_, index) in batch {
                call.key(keys.fallback_session(&sessions[*index]));
            }
            call.arg(node).arg(u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX)).arg(former.unwrap_or_default());
            let claimed: Vec<String> = self.link.run("hold_sessions", call).await?;
            for ((_, index), holder) in batch.iter().zip(claimed) {
                holders[*index] = holder;
            }
        }
        Ok(holders)
    }

    async fn holder_now(&self, session: &str) -> Result<Option<String>, DirectoryError> {
        let mut command = redis::cmd("GET");
        command.arg(self.link.keys().fallback_session(session));
        Ok(self.link.run("holder", command).await?)
    }

    async fn release_now(&self, node: &str, session: &str) -> Result<(), DirectoryError> {
        let mut call = scripts::release_key().key(self.link.keys().fallback_session(session));
        call.arg(node);
        Ok(self.link.run("drop_session", call).await?)
    }
}

impl Directory for RedisDirectory {
    fn claim<'a>(
        &'a self,
        node: &'a str,
        sessions: &'a [String],
        former: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        Box::pin(self.claim_now(node, sessions, former))
    }

    fn holder<'a>(&'a self, session: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        Box::pin(self.holder_now(session))
    }

    fn release<'a>(&'a self, node: &'a str, session: &'a str) -> BoxFuture<'a, Result<(), DirectoryError>> {
        Box::pin(self.release_now(node, session))
    }

    fn local_address(&self) -> BoxFuture<'_, io::Result<IpAddr>> {
        Box::pin(self.link.local_address())
    }
}

impl From<LinkError> for DirectoryError {
    fn from(error: LinkError) -> Self {
        Self(error.into())
    }
}
