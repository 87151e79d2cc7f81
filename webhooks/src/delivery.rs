//! Telling an endpoint of some entries, again and again until it listens or their time is over.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use shared::app::{App, Endpoint};
use shared::cluster::envelope::unix_us;
use shared::cluster::webhook::queues::TICK_INTERVAL;
use shared::cluster::webhook::{FailedDelivery, QueueId, StreamId, WebhookEvent};
use tokio::sync::Semaphore;

use crate::Context;
use crate::client::AttemptError;

/// Pause after the first failure; each is twice the one before, and some of it is left to chance.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Characters of an error that are kept.
const ERROR_LENGTH_MAX: usize = 200;

/// An endpoint, as all deliveries to it share it, from whichever partition.
pub(super) struct Recipient {
    pub(super) endpoint: Endpoint,
    /// One permit for each request that may be under way.
    slots: Semaphore,
    health: Mutex<EndpointHealth>,
}

/// Delivers one queue.
#[derive(Clone)]
pub(super) struct Deliverer {
    pub(super) queue: QueueId,
    pub(super) app: Arc<App>,
    pub(super) recipient: Arc<Recipient>,
    pub(super) context: Arc<Context>,
}

/// How an endpoint has answered lately.
#[derive(Default)]
struct EndpointHealth {
    /// Set while the last request did not succeed.
    failing: Option<Failing>,
}

struct Failing {
    since: Instant,
    last: Instant,
    error: String,
}

/// What became of a delivery.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) delivered: Vec<StreamId>,
    pub(super) failed: Vec<FailedDelivery>,
    /// The request that was taken counts until it is acknowledged.
    request: Option<Request>,
}

impl Recipient {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let slots = Semaphore::new(if endpoint.batch { 1 } else { endpoint.concurrency });
        Self { endpoint, slots, health: Mutex::default() }
    }
}

impl Deliverer {
    /// Tells of `events`, in one request, until there is an outcome for each. Never fails before every entry has been
    /// tried, unless the endpoint has long been failing.
    pub(super) async fn deliver(&self, mut events: Vec<WebhookEvent>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut ceiling = BACKOFF_MIN;
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
                events.into_iter().partition(|event| self.left(event, now_ms).is_zero());
            let letters =
                expired.into_iter().map(|event| FailedDelivery { event, attempts, error: error.text.clone() });
            outcome.failed.extend(letters);
            events = others;
            let Some(left) = events.iter().map(|event| self.left(event, now_ms)).min() else { return outcome };
            self.context.metrics.retried(&self.queue);
            let pause = rand::rng().random_range(ceiling / 2..=ceiling);
            // The last try comes when the time is over, and not long before.
            tokio::time::sleep(pause.min(left.max(BACKOFF_MIN / 2))).await;
            ceiling = (ceiling * 2).min(BACKOFF_MAX);
        }
    }

    async fn attempt(&self, events: &[WebhookEvent]) -> Result<Request, Failed> {
        let Recipient { endpoint, slots, health } = &*self.recipient;
        let _slot = slots.acquire().await.map_err(|_| Failed::not_tried("the sender is leaving"))?;
        // Another sender goes on with them, or this one when it leads again.
        while self.context.draining.is_cancelled() || !self.context.queues.leads(self.queue.partition) {
            tokio::time::sleep(TICK_INTERVAL).await;
        }
        self.check_health(events)?;
        let request = Request::begin(&self.context);
        let began = Instant::now();
        let result = self.context.client.send(&self.app, endpoint, events).await;
        self.context.metrics.requested(began.elapsed());
        let mut health = health.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(error) = result else {
            health.failing = None;
            return Ok(request);
        };
        let text = excerpt(&error);
        tracing::debug!(queue = %self.queue, events = events.len(), error = text, "webhook request failed");
        let since = health.failing.as_ref().map_or(began, |failing| failing.since);
        if health.failing.is_none() {
            tracing::warn!(endpoint = %self.queue.endpoint, app = %self.queue.app, error = text, "an endpoint fails");
        }
        health.failing = Some(Failing { since, last: began, error: text.clone() });
        Err(Failed { attempts: 1, text })
    }

    /// A backlog whose time is over must not be tried one by one against an endpoint that hangs: new entries still are, and
    /// one now and then.
    fn check_health(&self, events: &[WebhookEvent]) -> Result<(), Failed> {
        let give_up_after = self.context.config.give_up_after;
        let health = self.recipient.health.lock().unwrap_or_else(PoisonError::into_inner);
        let is_gone =
            |failing: &&Failing| failing.since.elapsed() > give_up_after && failing.last.elapsed() < BACKOFF_MAX;
        let Some(Failing { since, error, .. }) = health.failing.as_ref().filter(is_gone) else { return Ok(()) };
        let now_ms = unix_us() / 1000;
        if events.iter().any(|event| !self.left(event, now_ms).is_zero()) {
            return Ok(());
        }
        let minutes = since.elapsed().as_secs() / 60;
        Err(Failed::not_tried(&format!("not tried, the endpoint has failed for {minutes} min: {error}")))
    }

    /// For how long an entry is still told.
    fn left(&self, event: &WebhookEvent, now_ms: u64) -> Duration {
        let age = Duration::from_millis(now_ms.saturating_sub(event.at_ms));
        self.context.config.give_up_after.saturating_sub(age)
    }
}

/// Counts a request that is under way until it is over, however that comes about.
struct Request(Arc<Context>);

impl Request {
    fn begin(context: &Arc<Context>) -> Self {
        context.requests.fetch_add(1, Ordering::AcqRel);
        Self(context.clone())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

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
