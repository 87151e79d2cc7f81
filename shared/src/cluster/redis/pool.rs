//! A pool of connections to Redis.
//!
//! `deadpool-redis` checks the connections. It does not make them, because its manager can neither take a verifier of
//! certificates nor ask for the identity of the server: [`Dialer`] does.

use std::time::Duration;

use deadpool::managed::{self, RecycleError, RecycleResult};
use deadpool_redis::Metrics;
use tokio::time::timeout;

use super::dialer::{Connected, Dialer};
use super::error::{LinkError, Verdict};
use super::{ConfigError, url};

pub(crate) use deadpool_redis::{Runtime, Timeouts};

/// A pool of connections.
pub(crate) type Pool = managed::Pool<Manager>;
/// A connection of a pool, which returns to it when dropped.
pub(crate) type Connection = managed::Object<Manager>;
/// The error of a pool that has no connection to give.
pub(crate) type PoolError = managed::PoolError<LinkError>;

/// A connection that was idle for this long is asked for an answer before it is used again.
const IDLE: Duration = Duration::from_secs(1);

/// The time for that answer.
const IDLE_CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// Makes and checks the connections of a pool.
pub(crate) struct Manager {
    dialer: Dialer,
    /// Checks connections.
    library: deadpool_redis::Manager,
}

impl Manager {
    /// A manager of connections that `dialer` makes.
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
            return Err(RecycleError::message("the connection is lost"));
        }
        if metrics.last_used() < IDLE {
            return Ok(());
        }
        match timeout(IDLE_CHECK_TIMEOUT, self.library.recycle(&mut connected.connection, metrics)).await {
            Ok(Ok(())) => Ok(()),
            // A server that cannot save its data answers so. The command that follows finds out what that means.
            Ok(Err(RecycleError::Backend(error))) if matches!(Verdict::of(&error), Verdict::Refused(_)) => Ok(()),
            Ok(Err(RecycleError::Backend(error))) => Err(RecycleError::Backend(error.into())),
            Ok(Err(RecycleError::Message(message))) => Err(RecycleError::Message(message)),
            Err(_) => Err(RecycleError::Backend(LinkError::Timeout)),
        }
    }
}
