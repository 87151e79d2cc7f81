//! The pool of connections to Redis.
//!
//! `deadpool-redis` checks the connections and [`Dialer`] makes them. The manager of `deadpool-redis` supports neither
//! a verifier of certificates nor a query of the server's identity.

use std::time::Duration;

use deadpool::managed::{self, RecycleError, RecycleResult};
use deadpool_redis::Metrics;
use tokio::time::timeout;

use super::dialer::{Connected, Dialer};
use super::error::{LinkError, Verdict};
use super::{ConfigError, url};

pub(crate) use deadpool_redis::{Runtime, Timeouts};

/// The pool of connections.
pub(crate) type Pool = managed::Pool<Manager>;
/// A pooled connection. It returns to the pool when it is dropped.
pub(crate) type Connection = managed::Object<Manager>;
/// The error of a pool without an available connection.
pub(crate) type PoolError = managed::PoolError<LinkError>;

/// The idle time after which a connection is checked before it is used.
const IDLE: Duration = Duration::from_secs(1);

/// The timeout of this check.
const IDLE_CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// The manager of the pool, which makes and checks connections.
pub(crate) struct Manager {
    dialer: Dialer,
    /// The manager that checks connections.
    library: deadpool_redis::Manager,
}

impl Manager {
    /// Creates a manager whose connections `dialer` makes.
    ///
    /// # Errors
    /// [`ConfigError::Url`].
    pub(crate) fn new(dialer: Dialer) -> Result<Self, ConfigError> {
        let info = dialer.connector.connection_info().clone();
        let library = deadpool_redis::Manager::new(info).map_err(|_| ConfigError::Url(url::EXPECTED))?;
        Ok(Self { dialer, library })
    }
}

impl managed::Manager for Manager {
    type Type = Connected;
    type Error = LinkError;

    async fn create(&self) -> Result<Connected, LinkError> {
        self.dialer.dial_for_commands().await
    }

    async fn recycle(&self, connected: &mut Connected, metrics: &Metrics) -> RecycleResult<LinkError> {
        if !connected.is_usable(&self.dialer.primary) {
            return Err(RecycleError::message("the connection has ended"));
        }
        if metrics.last_used() < IDLE {
            return Ok(());
        }
        match timeout(IDLE_CHECK_TIMEOUT, self.library.recycle(&mut connected.connection, metrics)).await {
            Ok(Ok(())) => Ok(()),
            // A server that cannot save its data replies with an error. The next command reports it.
            Ok(Err(RecycleError::Backend(error))) if matches!(Verdict::of(&error), Verdict::Refused(_)) => Ok(()),
            Ok(Err(RecycleError::Backend(error))) => Err(RecycleError::Backend(error.into())),
            Ok(Err(RecycleError::Message(message))) => Err(RecycleError::Message(message)),
            Err(_) => Err(RecycleError::Backend(LinkError::Timeout)),
        }
    }
}
