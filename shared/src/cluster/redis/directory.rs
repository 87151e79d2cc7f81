//! Which node has which session of the HTTP transports. A session's requests may come to any node.

use std::time::{Duration, Instant};

use redis::AsyncCommands;

use super::link::LinkError;
use super::metrics::Metrics;
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
    metrics: Metrics,
}

impl Directory {
    /// The directory in this Redis.
    pub fn new(link: Link, metrics: Metrics) -> Self {
        Self { link, metrics }
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
            let names: Vec<String> = batch.iter().map(|(_, index)| keys.fallback_session(&sessions[*index])).collect();
            let (address, gone) = (address.to_owned(), instead_of.unwrap_or_default().to_owned());
            let held = self.link.run(move |mut connection| {
                Box::pin(async move {
                    let script = scripts::claim_sessions();
                    let mut call = script.prepare_invoke();
                    for key in names {
                        call.key(key);
                    }
                    call.arg(address).arg(u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX)).arg(gone);
                    call.invoke_async::<Vec<String>>(&mut connection).await
                })
            });
            for ((_, index), holder) in batch.iter().zip(self.timed("hold_sessions", held).await?) {
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
        let key = self.link.keys().fallback_session(session);
        let asked = self.link.run(move |mut connection| Box::pin(async move { connection.get(key).await }));
        self.timed("holder", asked).await
    }

    /// Notes that the node at `address` does not have the session any more.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn release(&self, address: &str, session: &str) -> Result<(), LinkError> {
        let (key, address) = (self.link.keys().fallback_session(session), address.to_owned());
        let released = self.link.run(move |mut connection| {
            Box::pin(async move {
                let script = scripts::release_key();
                script.key(key).arg(address).invoke_async::<()>(&mut connection).await
            })
        });
        self.timed("drop_session", released).await
    }

    async fn timed<T>(
        &self,
        command: &str,
        answer: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        let began = Instant::now();
        let result = answer.await;
        match &result {
            Ok(_) => self.metrics.answered(command, began.elapsed()),
            Err(error) => self.metrics.failed(error.cause_label()),
        }
        result
    }
}
