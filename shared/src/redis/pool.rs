//! A pool of connections to Redis.
//!
//! `deadpool-redis` makes connections with the library's client, which cannot take a verifier of certificates, so this
//! manager uses [`Connector`].

use std::sync::atomic::{AtomicU64, Ordering};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};

use super::connector::Connector;

pub use deadpool::Runtime;
pub use deadpool::managed::Timeouts;

/// A pool of connections.
pub type Pool = managed::Pool<Manager>;
/// A connection of a pool, which returns to it when dropped.
pub type Connection = managed::Object<Manager>;
/// A function that a pool calls with each connection.
pub type Hook = managed::Hook<Manager>;
/// The error of a [`Hook`].
pub type HookError = managed::HookError<RedisError>;

/// Makes and checks the connections of a pool.
pub struct Manager {
    connector: Connector,
    pings: AtomicU64,
}

impl Manager {
    /// A manager of connections that `connector` makes.
    pub fn new(connector: Connector) -> Self {
        Self { connector, pings: AtomicU64::new(0) }
    }
}

impl managed::Manager for Manager {
    type Type = MultiplexedConnection;
    type Error = RedisError;

    async fn create(&self) -> Result<MultiplexedConnection, RedisError> {
        self.connector.connect(AsyncConnectionConfig::new()).await
    }

    /// A connection whose answers are one behind would give each caller the answer of another.
    async fn recycle(&self, connection: &mut MultiplexedConnection, _: &Metrics) -> RecycleResult<RedisError> {
        let sent = self.pings.fetch_add(1, Ordering::Relaxed).to_string();
        let returned: String = redis::cmd("PING").arg(&sent).query_async(connection).await?;
        if returned == sent { Ok(()) } else { Err(RecycleError::message("the answer belongs to another command")) }
    }
}
