//! Makes connections to a primary and queries the identity of the server on each.
//!
//! One runtime makes all connections. A connection ends with its runtime, and a shard may end before other users of
//! Redis.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::connector::Connector;
use super::error::{LinkError, Verdict};
use super::identity::Identity;
use super::primary_state::{Generation, PrimaryState};

/// The maker of connections to one primary.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) connector: Connector,
    pub(crate) runtime: Handle,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) primary: Arc<PrimaryState>,
}

/// A connection to a server that may be used.
#[derive(Clone)]
pub(crate) struct Connected {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) generation: Generation,
    /// Whether the connection has ended or was discarded.
    lost: Arc<AtomicBool>,
}

impl Dialer {
    /// Makes the publishing connection. All other connections of the node must then lead to the same server.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn dial_for_events(&self, config: AsyncConnectionConfig) -> Result<Connected, LinkError> {
        let lost = Arc::new(AtomicBool::new(false));
        let config = config.set_push_sender(note_loss(lost.clone()));
        let (connection, _, identity) = self.dial(config).await?;
        let generation = self.primary.adopt(identity.run_id.as_ref());
        Ok(Connected { connection, generation, lost })
    }

    /// Makes a connection to the server of the publishing connection. `config` has the receiver of pushes, if any.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn dial_beside(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Generation), LinkError> {
        let (connection, generation, identity) = self.dial(config).await?;
        if self.primary.is_same_server(identity.run_id.as_ref()) {
            return Ok((connection, generation));
        }
        Err(LinkError::Connect("the address leads to a different server than before".into()))
    }

    /// Makes a connection to the server of the publishing connection, and tracks whether it has ended.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn dial_for_commands(&self) -> Result<Connected, LinkError> {
        let lost = Arc::new(AtomicBool::new(false));
        let config = AsyncConnectionConfig::new().set_push_sender(note_loss(lost.clone()));
        let (connection, generation) = self.dial_beside(config).await?;
        Ok(Connected { connection, generation, lost })
    }

    async fn dial(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Generation, Identity), LinkError> {
        let generation = self.primary.generation();
        let connector = self.connector.clone();
        let connect = async move {
            let mut connection = connector.connect(config).await?;
            let identity = Identity::query(&mut connection).await?;
            Ok::<_, RedisError>((connection, identity))
        };
        // Twice the timeout, for the connection and for the queries.
        let dialed = self.runtime.spawn(timeout(self.connect_timeout * 2, connect));
        let error = match dialed.await {
            Ok(Ok(Ok((connection, identity)))) => match identity.refusal {
                None => return Ok((connection, generation, identity)),
                Some(refusal) => {
                    self.primary.refused(refusal, generation, &identity.description);
                    return Err(LinkError::Refused(refusal));
                }
            },
            Ok(Ok(Err(error))) => match Verdict::of(&error) {
                Verdict::Loading => LinkError::Loading,
                Verdict::Refused(refusal) => {
                    self.primary.refused(refusal, generation, &error.to_string());
                    return Err(LinkError::Refused(refusal));
                }
                _ => LinkError::Connect(error.into()),
            },
            Ok(Err(_)) => LinkError::Timeout,
            Err(_) => return Err(LinkError::Ended),
        };
        self.primary.unanswered();
        Err(error)
    }
}

impl Connected {
    /// Whether the connection may be used.
    pub(crate) fn is_usable(&self, primary: &PrimaryState) -> bool {
        !self.lost.load(Ordering::Acquire) && self.generation == primary.generation()
    }

    /// Prevents further use of the connection.
    pub(crate) fn discard(&self) {
        self.lost.store(true, Ordering::Release);
    }
}

/// Returns a receiver of pushes that records the end of a connection before the next command fails on it.
fn note_loss(lost: Arc<AtomicBool>) -> impl Fn(PushInfo) -> Result<(), Infallible> + Send + Sync + 'static {
    move |push| {
        if push.kind == PushKind::Disconnection {
            lost.store(true, Ordering::Release);
        }
        Ok(())
    }
}
