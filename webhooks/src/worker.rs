//! Reads one endpoint's queue and delivers it: the entries of a channel one after the other, several channels at a time.

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

/// Entries that a worker has in hand, and bytes of them: what bounds its memory. So many may wait behind a channel that is
/// being tried again before others wait for it too.
const WINDOW: usize = 2048;
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Entries that are read at a time.
const READ_MAX: usize = 256;

/// Entries of one request, where batches are wanted.
const BATCH_MAX: usize = 100;

/// Pause after the queues could not be reached.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

/// An idle worker looks this often for what it was handed and does not know of, as after an acknowledgement that was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What follows each other: the entries of a channel, or all of them where batches are wanted.
type Lane = Option<ChannelName>;

/// Reads and delivers one queue.
pub(super) struct Worker {
    deliverer: Deliverer,
    news: Arc<Notify>,
    /// How far the queue has been read.
    last: Option<StreamId>,
    /// What waits behind a delivery.
    lanes: HashMap<Lane, VecDeque<WebhookEvent>>,
    /// Entries in hand, those being delivered included, and their bytes.
    held: usize,
    held_bytes: usize,
    deliveries: JoinSet<Delivered>,
}

/// A delivery that came to an end.
struct Delivered {
    lane: Lane,
    events: usize,
    bytes: usize,
    outcome: Outcome,
}

impl Worker {
    pub(super) fn new(deliverer: Deliverer, news: Arc<Notify>) -> Self {
        Self { deliverer, news, last: None, lanes: HashMap::new(), held: 0, held_bytes: 0, deliveries: JoinSet::new() }
    }

    /// Works for as long as it is not dropped.
    pub(super) async fn run(mut self) {
        loop {
            let Err(error) = self.work().await;
            tracing::error!(queue = %self.deliverer.queue, %error, "a delivery failed in an unexpected way; reading again");
            sleep(QUEUE_PAUSE).await;
            self = Self::new(self.deliverer.clone(), self.news.clone());
        }
    }

    /// Ends when a delivery panicked: its entries would never be done with.
    async fn work(&mut self) -> Result<std::convert::Infallible, JoinError> {
        let mut may_have_more = true;
        let mut read_at = Instant::now();
        loop {
            let has_room = self.held < WINDOW && self.held_bytes < WINDOW_BYTES;
            let may_read = has_room && !self.deliverer.context.draining.is_cancelled();
            tokio::select! {
                Some(delivered) = self.deliveries.join_next() => self.settle(delivered?).await?,
                () = sleep_until(read_at), if may_have_more && may_read => match self.read().await {
                    Ok(more) => may_have_more = more,
                    Err(error) => {
                        tracing::debug!(queue = %self.deliverer.queue, %error, "a queue cannot be read now");
                        read_at = Instant::now() + QUEUE_PAUSE;
                    }
                },
                () = self.news.notified(), if !may_have_more => may_have_more = true,
                () = sleep(LOOK_AGAIN) => {
                    if self.held == 0 {
                        self.last = None;
                        may_have_more = true;
                    }
                }
            }
        }
    }

    /// Takes the next entries; returns whether there may be more.
    async fn read(&mut self) -> Result<bool, QueueError> {
        let Deliverer { queue, context, .. } = &self.deliverer;
        let Batch { events, last } = context.queues.read(queue, self.last.as_ref(), READ_MAX).await?;
        let Some(last) = last else { return Ok(false) };
        self.last = Some(last);
        let (wanted, others): (Vec<WebhookEvent>, Vec<WebhookEvent>) =
            events.into_iter().partition(|event| self.is_wanted(event));
        self.finish(others.into_iter().map(|event| event.stream_id).collect()).await;
        for event in wanted {
            self.take(event);
        }
        if self.deliverer.recipient.endpoint.batch && self.deliveries.is_empty() {
            self.next_of(None);
        }
        Ok(true)
    }

    fn is_wanted(&self, event: &WebhookEvent) -> bool {
        let Deliverer { queue, recipient, .. } = &self.deliverer;
        match &event.replay_to {
            Some(label) => label == queue.endpoint.as_str(),
            None => event.is_for(&recipient.endpoint),
        }
    }

    fn take(&mut self, event: WebhookEvent) {
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
            Delivered { lane, events: count, bytes, outcome }
        });
    }

    /// Delivers what comes next in a lane, or forgets the lane.
    fn next_of(&mut self, lane: Lane) {
        let most = if lane.is_none() { BATCH_MAX } else { 1 };
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        let next: Vec<WebhookEvent> = waiting.drain(..most.min(waiting.len())).collect();
        if next.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.deliver(lane, next);
        }
    }

    /// Makes the queue know of what became of deliveries, all that there are by now.
    async fn settle(&mut self, first: Delivered) -> Result<(), JoinError> {
        let (mut delivered, mut outcomes) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(Delivered { lane, events, bytes, mut outcome }) = next {
            self.held -= events;
            self.held_bytes -= bytes;
            delivered.append(&mut outcome.delivered);
            self.add_dead_letter(&outcome).await;
            outcomes.push(outcome);
            self.next_of(lane);
            next = self.deliveries.try_join_next().transpose()?;
        }
        self.finish(delivered).await;
        // Only now are their requests over.
        drop(outcomes);
        Ok(())
    }

    async fn add_dead_letter(&self, outcome: &Outcome) {
        let Deliverer { queue, context, .. } = &self.deliverer;
        for letter in &outcome.failed {
            tracing::warn!(
                app = %queue.app,
                endpoint = %queue.endpoint,
                id = %letter.event.id,
                attempts = letter.attempts,
                error = letter.error,
                "gave up telling an endpoint"
            );
            persist(|| context.queues.add_dead_letter(queue, letter)).await;
            context.metrics.dead_lettered(queue);
        }
    }

    async fn finish(&self, stream_ids: Vec<StreamId>) {
        let Deliverer { queue, context, .. } = &self.deliverer;
        if !stream_ids.is_empty() {
            persist(|| context.queues.acknowledge(queue, &stream_ids)).await;
        }
    }
}

/// Repeats what the queues cannot take now: what was delivered and is not done with would be delivered again. What they can
/// never take is left to whoever puts them right.
async fn persist<'a>(mut work: impl FnMut() -> BoxFuture<'a, Result<(), QueueError>>) {
    loop {
        match work().await {
            Ok(()) => return,
            Err(error @ QueueError::Damaged) => return tracing::error!(%error, "a webhook cannot be acknowledged"),
            Err(error) => tracing::debug!(%error, "cannot acknowledge webhooks; retrying"),
        }
        sleep(QUEUE_PAUSE).await;
    }
}
