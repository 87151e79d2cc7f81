//! Retries of calls to the roster, with exponential backoff and full jitter.

use std::time::Duration;

use futures_util::future::BoxFuture;
use shared::backoff::Backoff;
use shared::cluster::roster::RosterError;
use tokio::time::sleep;

use super::error::EnterError;

/// The waits between retries.
pub(super) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// Repeats a change while the roster is unavailable. Without the retry a lost leave, for example, would keep the member
/// forever.
///
/// # Errors
/// Errors that a retry does not fix.
pub(super) async fn persist<'a>(
    mut change: impl FnMut() -> BoxFuture<'a, Result<(), RosterError>>,
) -> Result<(), RosterError> {
    let mut backoff = BACKOFF;
    loop {
        match change().await {
            Err(RosterError::Unavailable) => sleep(backoff.next_wait()).await,
            result => return result,
        }
    }
}

/// Repeats a query while the cluster is unavailable. A subscription waits for as long as its client is connected.
///
/// # Errors
/// Errors that a retry does not fix.
pub(super) async fn retry<T>(mut query: impl AsyncFnMut() -> Result<T, EnterError>) -> Result<T, EnterError> {
    let mut backoff = BACKOFF;
    loop {
        match query().await {
            Err(EnterError::Unavailable) => sleep(backoff.next_wait()).await,
            result => return result,
        }
    }
}
