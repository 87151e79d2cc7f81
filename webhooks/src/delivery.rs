//! Delivers events to an endpoint, with retries until `webhooks.give_up_after`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shared::app::{App, Endpoint};
use shared::backoff::Backoff;
use shared::cluster::envelope::unix_us;
use shared::cluster::webhook::queues::TICK_INTERVAL;
use shared::cluster::webhook::{FailedDelivery, QueueId, StreamId, WebhookEvent};
use shared::sync::lock;
use tokio::sync::Semaphore;

use crate::client::AttemptError;
use crate::context::{Context, OpenRequest};

/// The bounds of the wait between two attempts.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The longest stored error text, in characters.
const ERROR_LENGTH_MAX: usize = 200;

/// The state of an endpoint, shared by its deliveries from all partitions.
pub(super) struct Recipient {
    pub(super) endpoint: Endpoint,
    /// A permit for each concurrent request.
    requests: Semaphore,
    health: Mutex<EndpointHealth>,
}

/// Delivers the events of one queue.
#[derive(Clone)]
pub(super) struct Deliverer {
    pub(super) queue: QueueId,
    pub(super) app: Arc<App>,
    pub(super) recipient: Arc<Recipient>,
    pub(super) context: Arc<Context>,
}

/// The recent results of requests to an endpoint.
#[derive(Default)]
struct EndpointHealth {
    /// Set if the last request failed.
    failing: Option<Failing>,
}

struct Failing {
    since: Instant,
    last: Instant,
    error: String,
}

/// The result of a delivery.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) delivered: Vec<StreamId>,
    pub(super) failed: Vec<FailedDelivery>,
    /// The successful request, which counts as open until it is acknowledged.
    request: Option<OpenRequest>,
}

impl Recipient {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let requests = Semaphore::new(if endpoint.batch { 1 } else { endpoint.concurrency });
        Self { endpoint, requests, health: Mutex::default() }
    }
}

impl Deliverer {
    /// Sends `events` in one request, and retries until each event is delivered or expired.
    ///
    /// Sends every event at least once, unless the endpoint has been failing for a long time.
    pub(super) async fn deliver(&self, mut events: Vec<WebhookEvent>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let mut attempts = 0;
        loop {
            let error = match self.attempt(&events).await {
                Ok(request) => {
                    outcome.request = Some(request);
                    self.context.metrics.delivered(&self.queue, events.len());
                    outcome.delivered.extend(events.into_iter().map(|event| event.stream_id));
                    return outcome;
                }
                Err(error) => error,
            };
            attempts += error.attempts;
            let now_ms = unix_us() / 1000;
            let (expired, others): (Vec<WebhookEvent>, Vec<WebhookEvent>) =
                events.into_iter().partition(|event| self.time_left(event, now_ms).is_zero());
            let failed = expired.into_iter().map(|event| FailedDelivery { event, attempts, error: error.text.clone() });
            outcome.failed.extend(failed);
            events = others;
            let Some(left) = events.iter().map(|event| self.time_left(event, now_ms)).min() else { return outcome };
            self.context.metrics.retried(&self.queue);
            // The last attempt is close to the expiry.
            tokio::time::sleep(backoff.next_long_wait().min(left.max(BACKOFF_MIN / 2))).await;
        }
    }

    async fn attempt(&self, events: &[WebhookEvent]) -> Result<OpenRequest, Failed> {
        let Recipient { endpoint, requests, health } = &*self.recipient;
        let _permit = requests.acquire().await.map_err(|_| Failed::not_tried("the dispatcher is shutting down"))?;
        // Another dispatcher delivers these events, or this one when it leads the partition again.
        while self.context.draining.is_cancelled() || !self.context.queues.leads(self.queue.partition) {
            tokio::time::sleep(TICK_INTERVAL).await;
        }
        self.check_health(events)?;
        let request = OpenRequest::begin(&self.context);
        let started = Instant::now();
        let result = self.context.client.send(&self.app, endpoint, events).await;
        self.context.metrics.requested(started.elapsed());
        let mut health = lock(health);
        let Err(error) = result else {
            health.failing = None;
            return Ok(request);
        };
        let text = excerpt(&error);
        tracing::debug!(queue = %self.queue, events = events.len(), error = text, "webhook request failed");
        let since = health.failing.as_ref().map_or(started, |failing| failing.since);
        if health.failing.is_none() {
            tracing::warn!(
                app.id = %self.queue.app,
                endpoint = %self.queue.endpoint,
                error = text,
                "webhook delivery is failing; retrying"
            );
        }
        health.failing = Some(Failing { since, last: started, error: text.clone() });
        Err(Failed { attempts: 1, text })
    }

    /// Fails without a request if all events are expired and the endpoint has been failing for `give_up_after`.
    ///
    /// Otherwise an endpoint that times out would receive every event of an expired backlog. Events that are not
    /// expired are still sent, and at least one request per [`BACKOFF_MAX`].
    fn check_health(&self, events: &[WebhookEvent]) -> Result<(), Failed> {
        let give_up_after = self.context.config.give_up_after;
        let health = lock(&self.recipient.health);
        let is_down =
            |failing: &&Failing| failing.since.elapsed() > give_up_after && failing.last.elapsed() < BACKOFF_MAX;
        let Some(Failing { since, error, .. }) = health.failing.as_ref().filter(is_down) else { return Ok(()) };
        let now_ms = unix_us() / 1000;
        if events.iter().any(|event| !self.time_left(event, now_ms).is_zero()) {
            return Ok(());
        }
        let minutes = since.elapsed().as_secs() / 60;
        Err(Failed::not_tried(&format!("not tried, the endpoint has failed for {minutes} min: {error}")))
    }

    /// Returns the time until an event expires.
    fn time_left(&self, event: &WebhookEvent, now_ms: u64) -> Duration {
        let age = Duration::from_millis(now_ms.saturating_sub(event.at_ms));
        self.context.config.give_up_after.saturating_sub(age)
    }
}

/// A failed attempt, with the number of requests that were sent: 0 or 1.
struct Failed {
    attempts: u32,
    text: String,
}

impl Failed {
    fn not_tried(text: &str) -> Self {
        Self { attempts: 0, text: text.to_owned() }
    }
}

fn excerpt(error: &AttemptError) -> String {
    error.to_string().chars().take(ERROR_LENGTH_MAX).collect()
}
