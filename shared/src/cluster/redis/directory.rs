//! Which node has which session of the HTTP transports. A session's requests may come to any node.

use std::time::Duration;

use super::link::LinkError;
use super::{Link, scripts};

/// How long a session that nobody keeps is known: a node that is gone without a word is found out by asking it.
const TTL: Duration = Duration::from_secs(60);

/// How often a node keeps its sessions.
pub const KEEP_INTERVAL: Duration = Duration::from_secs(20);

/// Sessions that are kept with one command.
const BATCH: usize = 200;

/// Sessions by name, across the cluster. Nodes are known by what they call themselves, which says where
/// other nodes reach them.
#[derive(Clone)]
pub struct Directory {
    link: Link,
}

impl Directory {
    /// The directory in this Redis.
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// The way to Redis.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Notes that the node at `address` has these sessions, unless others have them; returns who has each.
    ///
    /// `instead_of`: a node that is known not to have them.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn hold(
        &self,
        address: &str,
        sessions: &[String],
        instead_of: Option<&str>,
    ) -> Result<Vec<String>, LinkError> {
        let keys = self.link.keys();
        // One command has keys of one partition.
        let mut order: Vec<_> = sessions.iter().map(|name| keys.fallback_session_partition(name)).zip(0..).collect();
        order.sort_unstable();
        let mut holders = vec![String::new(); sessions.len()];
        let same = |a: &(u32, usize), b: &(u32, usize)| a.0 == b.0;
        for batch in order.chunk_by(same).flat_map(|partition| partition.chunks(BATCH)) {
            let mut call = scripts::claim_sessions().prepare_invoke();
            for (_, index) in batch {
                call.key(keys.fallback_session(&sessions[*index]));
            }
            call.arg(address).arg(u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX));
            call.arg(instead_of.unwrap_or_default());
            let held: Vec<String> = self.link.run("hold_sessions", call).await?;
            for ((_, index), holder) in batch.iter().zip(held) {
                holders[*index] = holder;
            }
        }
        Ok(holders)
    }

    /// Who has a session.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn holder(&self, session: &str) -> Result<Option<String>, LinkError> {
        let mut command = redis::cmd("GET");
        command.arg(self.link.keys().fallback_session(session));
        self.link.run("holder", command).await
    }

    /// Notes that the node at `address` does not have the session any more.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn release(&self, address: &str, session: &str) -> Result<(), LinkError> {
        let mut call = scripts::release_key().key(self.link.keys().fallback_session(session));
        call.arg(address);
        self.link.run("drop_session", call).await
    }
}
