//! A pool of connections to Redis.
//!
//! `deadpool-redis` makes connections with the library's client, which cannot take a verifier of certificates and does not
//! ask for the identity of the server, so this manager uses [`Dialer`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use tokio::time::timeout;

use super::dialer::{Connected, Dialer};
use super::error::{LinkError, Verdict};

pub(crate) use deadpool::Runtime;
pub(crate) use deadpool::managed::Timeouts;

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
    pings: AtomicU64,
}

impl Manager {
    /// A manager of connections that `dialer` makes.
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self { dialer, pings: AtomicU64::new(0) }
    }
}

impl managed::Manager for Manager {
    type Type = Connected;
    type Error = LinkError;

    async fn create(&self) -> Result<Connected, LinkError> {
        self.dialer.dial_for_commands().await
    }

    /// A connection whose answers are one behind would give each caller the answer of another.
    async fn recycle(&self, connected: &mut Connected, metrics: &Metrics) -> RecycleResult<LinkError> {
        if !connected.is_usable(&self.dialer.standing) {
            return Err(RecycleError::message("the connection is lost"));
        }
        if metrics.last_used() < IDLE {
            return Ok(());
        }
        let sent = self.pings.fetch_add(1, Ordering::Relaxed).to_string();
        let mut command = redis::cmd("PING");
        command.arg(&sent);
        match timeout(IDLE_CHECK_TIMEOUT, command.query_async::<String>(&mut connected.connection)).await {
            Ok(Ok(returned)) if returned == sent => Ok(()),
            Ok(Ok(_)) => Err(RecycleError::message("the answer belongs to another command")),
            // A server that cannot save its data answers so. The command that follows finds out what that means.
            Ok(Err(error)) if matches!(Verdict::of(&error), Verdict::Refused(_)) => Ok(()),
            Ok(Err(error)) => Err(RecycleError::Backend(error.into())),
            Err(_) => Err(RecycleError::Backend(LinkError::Timeout)),
        }
    }
}
