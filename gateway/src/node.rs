//! The state that all shards of a gateway share, and the health of the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shared::app::Apps;
use shared::serve::admin::Health;
use shared::serve::http::Routes;
use shared::serve::listener::AcceptPolicy;
use tokio::sync::Semaphore;

use crate::capacity::Capacity;
use crate::config::Server;
use crate::limits::{LARGE_BODIES_BYTES_MAX, fallback_body_bytes_max};
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::websocket::handshake::WarningLimit;

/// The gateway is not live if the timer of a shard has not fired for this long.
const STALL: Duration = Duration::from_secs(10);

/// One running gateway.
pub(crate) struct Node {
    pub(crate) server: Server,
    /// The access rules of the public listener.
    pub(crate) accept_policy: AcceptPolicy,
    pub(crate) apps: Apps,
    pub(crate) metrics: Metrics,
    pub(crate) relay: Arc<Relay>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) routes: Option<Arc<dyn Routes>>,
    /// A permit for each byte of large request bodies that may be buffered.
    pub(crate) large_bodies: Semaphore,
    /// The largest request body that is discarded before a refusal is sent, in bytes.
    pub(crate) body_bytes_max: u64,
    pub(crate) handshake_warnings: WarningLimit,
    started: Instant,
    /// By shard: when its timer last fired, in milliseconds after `started`.
    heartbeats_ms: Box<[AtomicU64]>,
    /// Requests of the HTTP API in progress.
    requests: AtomicUsize,
    serving: AtomicBool,
    draining: AtomicBool,
}

impl Node {
    pub(crate) fn new(
        server: Server,
        accept_policy: AcceptPolicy,
        apps: Apps,
        metrics: Metrics,
        relay: Arc<Relay>,
        capacity: Arc<Capacity>,
    ) -> Self {
        let body_bytes_max = apps.iter().map(|app| fallback_body_bytes_max(app)).max().unwrap_or_default() as u64;
        let shards = capacity.shards();
        Self {
            server,
            accept_policy,
            apps,
            metrics,
            relay,
            capacity,
            routes: None,
            large_bodies: Semaphore::new(LARGE_BODIES_BYTES_MAX),
            body_bytes_max,
            handshake_warnings: WarningLimit::default(),
            started: Instant::now(),
            heartbeats_ms: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            requests: AtomicUsize::new(0),
            serving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Records that a shard's timer fired.
    pub(crate) fn heartbeat(&self, shard: usize) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heartbeats_ms[shard].store(now, Ordering::Relaxed);
    }

    /// Counts a request of the HTTP API until the guard is dropped.
    pub(crate) fn begin_request(&self) -> RequestGuard<'_> {
        self.requests.fetch_add(1, Ordering::AcqRel);
        RequestGuard { node: self }
    }

    /// Resolves when no request of the HTTP API is in progress, or after `limit`.
    pub(crate) async fn requests_done(&self, limit: Duration) {
        const CHECK_INTERVAL: Duration = Duration::from_millis(5);
        let until = Instant::now() + limit;
        while self.requests.load(Ordering::Acquire) > 0 && Instant::now() < until {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// Returns the seconds since the node started.
    pub(crate) fn age_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(crate) fn start_serving(&self) {
        self.serving.store(true, Ordering::Release);
    }

    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.metrics.draining.set(1);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// A request of the HTTP API. It counts as in progress until the guard is dropped.
pub(crate) struct RequestGuard<'a> {
    node: &'a Node,
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.node.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Health for Node {
    fn live(&self) -> Result<(), String> {
        let now = self.started.elapsed();
        for (shard, heartbeat) in self.heartbeats_ms.iter().enumerate() {
            let blocked = now.saturating_sub(Duration::from_millis(heartbeat.load(Ordering::Relaxed)));
            if blocked > STALL {
                return Err(format!("shard {shard}: event loop blocked for {} s", blocked.as_secs()));
            }
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.is_draining() {
            return Err("draining".into());
        }
        if !self.serving.load(Ordering::Acquire) {
            return Err("starting".into());
        }
        Ok(())
    }
}
