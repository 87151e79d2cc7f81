//! Harness of the integration tests: runs the real binary as a process of its own and talks to it over real sockets.
//!
//! Whatever does not go as a test expects panics with what was expected; every wait ends by [`DEADLINE`].

use std::future::Future;
use std::time::Duration;

pub mod client;
pub mod command;
pub mod metrics;
pub mod raw;
pub mod server;
pub mod setup;
pub mod witness;

pub use client::TestClient;
pub use raw::Raw;
pub use server::Server;
pub use setup::Setup;
pub use witness::Witnesses;

/// Longest wait for anything that should happen at once; generous, since the machine may be busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often a condition that cannot be awaited is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits for `future`.
///
/// # Panics
/// When it takes longer than [`DEADLINE`]; `what` names it.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Looks at a condition until it holds; for what no message tells of.
///
/// # Panics
/// When it does not hold within [`DEADLINE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}
