//! The state that all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::cluster::webhook::Queues;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::config::Config;
use crate::metrics::Metrics;

/// The state that all workers share.
pub(super) struct Context {
    pub(super) queues: Arc<dyn Queues>,
    pub(super) client: Client,
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    /// Requests that are open, or accepted by the endpoint and not yet acknowledged in the queue.
    requests: AtomicUsize,
    /// Cancelled when no new request must start.
    pub(super) draining: CancellationToken,
}

/// A request in the count of [`Context::open_requests`], until it is dropped.
pub(super) struct OpenRequest(Arc<Context>);

impl Context {
    pub(super) fn new(queues: Arc<dyn Queues>, client: Client, config: Config, metrics: Metrics) -> Self {
        let (requests, draining) = (AtomicUsize::new(0), CancellationToken::new());
        Self { queues, client, config, metrics, requests, draining }
    }

    /// Returns the number of requests that are open or not yet acknowledged.
    pub(super) fn open_requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }
}

impl OpenRequest {
    pub(super) fn begin(context: &Arc<Context>) -> Self {
        context.requests.fetch_add(1, Ordering::AcqRel);
        Self(context.clone())
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}
