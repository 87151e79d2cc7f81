//! Reads one endpoint's queue and delivers it: the entries of a channel one after the other, several channels at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use shared::app::App;
use shared::protocol::ChannelName;
use shared::webhook::{Batch, Endpoint, Entry, Place, QueueError, QueueId, Reading};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Context;
use super::delivery::{Outcome, Recipient};

/// Entries that a worker has in hand: what bounds its memory, and lets channels pass one that waits for its next try.
const WINDOW: usize = 256;

/// Entries of one request, where batches are wanted.
const BATCH_MAX: usize = 100;

/// Pause after the queues could not be reached.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

/// Reads and delivers one queue.
pub(super) struct Worker {
    recipient: Arc<Recipient>,
    news: Arc<Notify>,
    reading: Reading,
    /// What waits behind a delivery, by what follows each other: the channel, or everything where batches are wanted.
    lanes: HashMap<Option<ChannelName>, VecDeque<Entry>>,
    /// Entries in hand, those being delivered included.
    held: usize,
    deliveries: JoinSet<(Option<ChannelName>, usize, Outcome)>,
}

impl Worker {
    pub(super) fn new(
        queue: QueueId,
        app: Arc<App>,
        endpoint: Arc<Endpoint>,
        context: Arc<Context>,
        news: Arc<Notify>,
    ) -> Self {
        Self {
            recipient: Arc::new(Recipient::new(queue, app, endpoint, context)),
            news,
            reading: Reading::Unfinished(None),
            lanes: HashMap::new(),
            held: 0,
            deliveries: JoinSet::new(),
        }
    }

    /// Works for as long as it is not dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.work().await;
            let Recipient { queue, app, endpoint, context, .. } = &*self.recipient;
            tracing::error!(%queue, "a delivery failed in an unexpected way; its queue is read again");
            let again = Self::new(queue.clone(), app.clone(), endpoint.clone(), context.clone(), self.news.clone());
            self = again;
            sleep(QUEUE_PAUSE).await;
        }
    }

    /// Returns when a delivery panicked: it would never be done with.
    async fn work(&mut self) {
        let mut may_have_more = true;
        let mut again_at = Instant::now();
        loop {
            let has_room = self.held < WINDOW && !self.recipient.context.leaving.is_cancelled();
            tokio::select! {
                Some(delivered) = self.deliveries.join_next() => {
                    let Ok(delivered) = delivered else { return };
                    self.settle(delivered).await;
                }
                () = sleep_until(again_at), if may_have_more && has_room => match self.read().await {
                    Ok(more) => may_have_more = more,
                    Err(error) => {
                        tracing::debug!(queue = %self.recipient.queue, %error, "a queue cannot be read now");
                        again_at = Instant::now() + QUEUE_PAUSE;
                    }
                },
                () = self.news.notified(), if !may_have_more => may_have_more = true,
            }
        }
    }

    /// Takes the next entries; returns whether there may be more.
    async fn read(&mut self) -> Result<bool, QueueError> {
        let recipient = self.recipient.clone();
        let Batch { entries, last } =
            recipient.context.queues.read(&recipient.queue, &self.reading, WINDOW - self.held).await?;
        let more = match (&self.reading, last) {
            (Reading::Unfinished(_), Some(last)) => {
                self.reading = Reading::Unfinished(Some(last));
                true
            }
            (Reading::Unfinished(_), None) => {
                self.reading = Reading::New;
                true
            }
            (Reading::New, last) => last.is_some(),
        };
        let (wanted, others): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| self.is_wanted(entry));
        self.finish(others.into_iter().map(|entry| entry.place).collect()).await;
        for entry in wanted {
            self.take(entry);
        }
        self.begin_batch();
        Ok(more)
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        let Recipient { queue, endpoint, .. } = &*self.recipient;
        match &entry.only {
            Some(only) => only == queue.endpoint.as_str(),
            None => endpoint.wants(entry),
        }
    }

    fn take(&mut self, entry: Entry) {
        self.held += 1;
        let is_batched = self.recipient.endpoint.batch;
        let lane = (!is_batched).then(|| entry.channel.clone());
        match self.lanes.get_mut(&lane) {
            Some(waiting) => waiting.push_back(entry),
            None if is_batched => {
                self.lanes.insert(lane, VecDeque::from([entry]));
            }
            None => {
                self.lanes.insert(lane.clone(), VecDeque::new());
                self.deliver(lane, vec![entry]);
            }
        }
    }

    /// Begins to deliver what was collected, if nothing is on its way.
    fn begin_batch(&mut self) {
        if self.recipient.endpoint.batch && self.deliveries.is_empty() {
            self.next_of(None);
        }
    }

    fn deliver(&mut self, lane: Option<ChannelName>, entries: Vec<Entry>) {
        let (recipient, count) = (self.recipient.clone(), entries.len());
        self.deliveries.spawn(async move { (lane, count, recipient.deliver(entries).await) });
    }

    /// Delivers what comes next in a lane, or forgets the lane.
    fn next_of(&mut self, lane: Option<ChannelName>) {
        let most = if lane.is_none() { BATCH_MAX } else { 1 };
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        let next: Vec<Entry> = waiting.drain(..most.min(waiting.len())).collect();
        if next.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.deliver(lane, next);
        }
    }

    /// Makes the queues know of what became of deliveries, all that there are by now.
    async fn settle(&mut self, first: (Option<ChannelName>, usize, Outcome)) {
        let mut told = Vec::new();
        let mut next = Some(first);
        while let Some((lane, count, outcome)) = next {
            self.held -= count;
            told.extend(outcome.told);
            for letter in outcome.undelivered {
                let Recipient { queue, context, .. } = &*self.recipient;
                tracing::warn!(
                    app = %queue.app,
                    endpoint = %queue.endpoint,
                    id = %letter.entry.id,
                    attempts = letter.attempts,
                    error = letter.error,
                    "gave up telling an endpoint"
                );
                persist(|| context.queues.bury(queue, &letter)).await;
                context.metrics.buried(queue);
            }
            self.next_of(lane);
            next = self.deliveries.try_join_next().and_then(Result::ok);
        }
        self.finish(told).await;
    }

    async fn finish(&self, places: Vec<Place>) {
        let Recipient { queue, context, .. } = &*self.recipient;
        if !places.is_empty() {
            persist(|| context.queues.done(queue, &places)).await;
        }
    }
}

/// Repeats what the queues cannot take now: what was delivered and is not done with would be delivered again.
async fn persist<'a>(mut work: impl FnMut() -> BoxFuture<'a, Result<(), QueueError>>) {
    while let Err(error) = work().await {
        tracing::debug!(%error, "the queues are told again");
        sleep(QUEUE_PAUSE).await;
    }
}
