//! Harness of the integration tests: runs the real binary as a process of its own and talks to it over real sockets.
//!
//! Whatever does not go as a test expects panics with what was expected; every wait ends by [`DEADLINE`].

use std::future::Future;
use std::time::Duration;

pub mod client;
pub mod cluster;
pub mod command;
pub mod fallback;
pub mod metrics;
pub mod nginx;
pub mod ports;
pub mod proxy;
pub mod raw;
pub mod receiver;
pub mod redis;
pub mod server;
pub mod setup;
pub mod tunnel;
pub mod view;
pub mod witness;

pub use client::TestClient;
pub use cluster::Cluster;
pub use fallback::HttpClient;
pub use nginx::Nginx;
pub use proxy::Proxy;
pub use raw::Raw;
pub use receiver::Receiver;
pub use redis::Redis;
pub use server::Server;
pub use setup::Setup;
pub use view::{Observer, View};
pub use witness::Witnesses;

/// Longest wait for anything that should happen at once; generous, since the machine may be busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Longest wait for what takes the cluster its time by design: a dead node is gone 30 s after its end, as promised, and
/// the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition that cannot be awaited is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits for `future`.
///
/// # Panics
/// When it takes longer than [`DEADLINE`]; `what` names it.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_time(DEADLINE, what, future).await
}

/// Waits for `future`, for as long as `limit`.
///
/// # Panics
/// When it takes longer; `what` names it.
pub async fn within_time<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Looks at a condition until it holds; for what no message tells of.
///
/// # Panics
/// When it does not hold within [`DEADLINE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    eventually_within(DEADLINE, what, condition).await;
}

/// Looks at a condition until it holds, for as long as `limit`.
///
/// # Panics
/// When it does not hold by then.
pub async fn eventually_within<F: Future<Output = bool>>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    within_time(limit, what, async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
}
