//! The harness of the integration tests. It runs the real binary as a process and connects to it over real sockets.
//!
//! Helpers panic with the expected result if a test fails. Every wait ends after [`DEADLINE`].

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

/// The longest wait for anything that should happen at once. It allows for a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The longest wait for anything that the cluster delays by design. For example, a crashed node is removed within 30 s.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The interval at which conditions without a notification are checked.
const POLL: Duration = Duration::from_millis(10);

/// Waits for `future`.
///
/// # Panics
/// Panics if it takes longer than [`DEADLINE`]. The message contains `what`.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_time(DEADLINE, what, future).await
}

/// Waits for `future`, up to `limit`.
///
/// # Panics
/// Panics if it takes longer. The message contains `what`.
pub async fn within_time<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Checks a condition repeatedly until it is true. Use it if no message announces the change.
///
/// # Panics
/// Panics if it does not become true within [`DEADLINE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    eventually_within(DEADLINE, what, condition).await;
}

/// Checks a condition repeatedly until it is true, up to `limit`.
///
/// # Panics
/// Panics if it does not become true in time.
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
