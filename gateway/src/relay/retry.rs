//! Retries of calls to the roster, with exponential backoff and full jitter.

use std::time::Duration;

use futures_util::future::BoxFuture;
use rand::Rng;
use shared::cluster::roster::RosterError;

use super::error::EnterError;

/// The longest first wait.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Waits for a random time below `ceiling`, and doubles the ceiling.
pub(super) async fn back_off(ceiling: &mut Duration) {
    let wait = rand::rng().random_range(Duration::ZERO..=*ceiling);
    tokio::time::sleep(wait).await;
    *ceiling = (*ceiling * 2).min(BACKOFF_MAX);
}

/// Repeats a change while the roster is unavailable. Without the retry a lost leave, for example, would keep the member
/// forever.
///
/// # Errors
/// Errors that a retry does not fix.
pub(super) async fn persist<'a>(
    mut change: impl FnMut() -> BoxFuture<'a, Result<(), RosterError>>,
) -> Result<(), RosterError> {
    let mut ceiling = BACKOFF_MIN;
    loop {
        match change().await {
            Err(RosterError::Unavailable) => back_off(&mut ceiling).await,
            result => return result,
        }
    }
}

/// Repeats a query while the cluster is unavailable. A subscription waits for as long as its client is connected.
///
/// # Errors
/// Errors that a retry does not fix.
pub(super) async fn retry<T>(mut query: impl AsyncFnMut() -> Result<T, EnterError>) -> Result<T, EnterError> {
    let mut ceiling = BACKOFF_MIN;
    loop {
        match query().await {
            Err(EnterError::Unavailable) => back_off(&mut ceiling).await,
            result => return result,
        }
    }
}
