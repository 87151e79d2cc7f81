//! Reads and delivers the queue of one endpoint. Events of one channel are sent in order; channels are independent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use shared::cluster::webhook::{Batch, QueueError, StreamId, WebhookEvent};
use shared::protocol::ChannelName;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::delivery::{Deliverer, Outcome};

/// The bounds of the events in a worker's memory: their number and their bytes.
///
/// If events of one channel are retried, this many can follow in the queue before other channels are delayed too.
const WINDOW: usize = 2048;
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// The number of events in one read.
const READ_MAX: usize = 256;

/// The number of events in one request, for endpoints with `batch`.
const BATCH_MAX: usize = 100;

/// The pause after an error of the queues.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

/// How often an idle worker reads its queue from the start. It then finds events whose acknowledgement was lost.
const REREAD_INTERVAL: Duration = Duration::from_secs(30);

/// The events that are delivered in order: those of one channel, or all of them for an endpoint with `batch`.
type Lane = Option<ChannelName>;

/// The worker of one queue.
pub(super) struct Worker {
    deliverer: Deliverer,
    news: Arc<Notify>,
    /// The position up to which the queue was read.
    last: Option<StreamId>,
    /// Events that wait for an open delivery of their lane.
    lanes: HashMap<Lane, VecDeque<WebhookEvent>>,
    /// The number of events in memory, including those of open deliveries, and their bytes.
    held: usize,
    held_bytes: usize,
    deliveries: JoinSet<Finished>,
}

/// A finished delivery.
struct Finished {
    lane: Lane,
    events: usize,
    bytes: usize,
    outcome: Outcome,
}

impl Worker {
    pub(super) fn new(deliverer: Deliverer, news: Arc<Notify>) -> Self {
        Self { deliverer, news, last: None, lanes: HashMap::new(), held: 0, held_bytes: 0, deliveries: JoinSet::new() }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let Err(error) = self.work().await;
            tracing::error!(
                queue = %self.deliverer.queue,
                %error,
                "a webhook delivery panicked; reading the queue again"
            );
            sleep(QUEUE_PAUSE).await;
            self = Self::new(self.deliverer.clone(), self.news.clone());
        }
    }

    /// Returns only if a delivery panicked. Its events would never be acknowledged.
    async fn work(&mut self) -> Result<std::convert::Infallible, JoinError> {
        let mut may_have_more = true;
        let mut read_at = Instant::now();
        loop {
            let has_room = self.held < WINDOW && self.held_bytes < WINDOW_BYTES;
            let may_read = has_room && !self.deliverer.context.draining.is_cancelled();
            tokio::select! {
                Some(finished) = self.deliveries.join_next() => self.complete(finished?).await?,
                () = sleep_until(read_at), if may_have_more && may_read => match self.read().await {
                    Ok(more) => may_have_more = more,
                    Err(error) => {
                        tracing::debug!(queue = %self.deliverer.queue, %error, "cannot read a webhook queue; retrying");
                        read_at = Instant::now() + QUEUE_PAUSE;
                    }
                },
                () = self.news.notified(), if !may_have_more => may_have_more = true,
                () = sleep(REREAD_INTERVAL) => {
                    if self.held == 0 {
                        self.last = None;
                        may_have_more = true;
                    }
                }
            }
        }
    }

    /// Reads the next events. Returns whether there can be more.
    async fn read(&mut self) -> Result<bool, QueueError> {
        let Deliverer { queue, context, .. } = &self.deliverer;
        let Batch { events, last } = context.queues.read(queue, self.last.as_ref(), READ_MAX).await?;
        let Some(last) = last else { return Ok(false) };
        self.last = Some(last);
        let (accepted, others): (Vec<WebhookEvent>, Vec<WebhookEvent>) =
            events.into_iter().partition(|event| self.accepts(event));
        self.acknowledge(others.into_iter().map(|event| event.stream_id).collect()).await;
        for event in accepted {
            self.push(event);
        }
        if self.deliverer.recipient.endpoint.batch && self.deliveries.is_empty() {
            self.deliver_next(None);
        }
        Ok(true)
    }

    fn accepts(&self, event: &WebhookEvent) -> bool {
        let Deliverer { queue, recipient, .. } = &self.deliverer;
        match &event.replay_to {
            Some(label) => label == queue.endpoint.as_str(),
            None => event.is_for(&recipient.endpoint),
        }
    }

    /// Adds an event to its lane. Starts its delivery if the lane has no open one.
    fn push(&mut self, event: WebhookEvent) {
        self.held += 1;
        self.held_bytes += event.bytes();
        let is_batched = self.deliverer.recipient.endpoint.batch;
        let lane = (!is_batched).then(|| event.channel.clone());
        match self.lanes.get_mut(&lane) {
            Some(waiting) => waiting.push_back(event),
            None if is_batched => {
                self.lanes.insert(lane, VecDeque::from([event]));
            }
            None => {
                self.lanes.insert(lane.clone(), VecDeque::new());
                self.deliver(lane, vec![event]);
            }
        }
    }

    fn deliver(&mut self, lane: Lane, events: Vec<WebhookEvent>) {
        let (deliverer, count, bytes) =
            (self.deliverer.clone(), events.len(), events.iter().map(WebhookEvent::bytes).sum::<usize>());
        self.deliveries.spawn(async move {
            let outcome = deliverer.deliver(events).await;
            Finished { lane, events: count, bytes, outcome }
        });
    }

    /// Starts the next delivery of a lane, or removes an empty lane.
    fn deliver_next(&mut self, lane: Lane) {
        let most = if lane.is_none() { BATCH_MAX } else { 1 };
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        let next: Vec<WebhookEvent> = waiting.drain(..most.min(waiting.len())).collect();
        if next.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.deliver(lane, next);
        }
    }

    /// Acknowledges all deliveries that have finished, and starts the next ones of their lanes.
    async fn complete(&mut self, first: Finished) -> Result<(), JoinError> {
        let (mut delivered, mut outcomes) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(Finished { lane, events, bytes, mut outcome }) = next {
            self.held -= events;
            self.held_bytes -= bytes;
            delivered.append(&mut outcome.delivered);
            self.add_dead_letters(&outcome).await;
            outcomes.push(outcome);
            self.deliver_next(lane);
            next = self.deliveries.try_join_next().transpose()?;
        }
        self.acknowledge(delivered).await;
        // The requests count as open until here.
        drop(outcomes);
        Ok(())
    }

    async fn add_dead_letters(&self, outcome: &Outcome) {
        let Deliverer { queue, context, .. } = &self.deliverer;
        for failed in &outcome.failed {
            tracing::warn!(
                app.id = %queue.app,
                endpoint = %queue.endpoint,
                event.id = %failed.event.id,
                attempts = failed.attempts,
                error = failed.error,
                "gave up delivering a webhook: the endpoint did not accept it in time"
            );
            persist(|| context.queues.add_dead_letter(queue, failed)).await;
            context.metrics.dead_lettered(queue);
        }
    }

    async fn acknowledge(&self, stream_ids: Vec<StreamId>) {
        let Deliverer { queue, context, .. } = &self.deliverer;
        if !stream_ids.is_empty() {
            persist(|| context.queues.acknowledge(queue, &stream_ids)).await;
        }
    }
}

/// Retries a change of the queues until it succeeds. Otherwise events that are delivered would be delivered again.
///
/// Does not retry if a key is damaged, because only an operator can repair it.
async fn persist<'a>(mut change: impl FnMut() -> BoxFuture<'a, Result<(), QueueError>>) {
    loop {
        match change().await {
            Ok(()) => return,
            Err(error @ QueueError::Damaged) => {
                return tracing::error!(%error, "cannot record the outcome of a webhook delivery; repair the key in Redis");
            }
            Err(error) => tracing::debug!(%error, "cannot record the outcome of webhook deliveries; retrying"),
        }
        sleep(QUEUE_PAUSE).await;
    }
}
