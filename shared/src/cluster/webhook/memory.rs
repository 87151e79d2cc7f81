//! The queues of a single process. A crash of the process loses their events.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use futures_util::future::{BoxFuture, ready};

use super::event::{EventId, Occurrence, StreamId, WebhookEvent};
use super::queues::{Backlog, Backlogs, Batch, FailedDelivery, QueueError, QueueId, Queues};
use crate::app::{AppId, Apps, Endpoint, Label, WebhookKind, WebhookKinds};
use crate::cluster::envelope::{Topic, unix_us};
use crate::limits::{CACHE_MISS_INTERVAL, COUNT_IMMEDIATE_MAX, COUNT_INTERVAL, WEBHOOK_HOLD};
use crate::protocol::UserId;
use crate::sync::lock;

/// The bounds of an endpoint's queue: events and their bytes. Beyond them the oldest events are dropped.
const QUEUE_MAX: usize = 100_000;
const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The only partition.
const PARTITION: u32 = 0;

/// The queues in memory, and the held events.
pub struct MemoryQueues {
    apps: HashMap<AppId, (WebhookKinds, Vec<(Label, Endpoint)>)>,
    state: Mutex<State>,
    has_overflowed: AtomicBool,
}

#[derive(Default)]
struct State {
    queues: HashMap<(AppId, Label), Queue>,
    /// The held events by the time at which they are due, and then by sequence.
    due: BTreeMap<(Instant, u64), Held>,
    holds: HashMap<Held, (Instant, u64)>,
    /// Apps with new events since the last tick.
    ready_apps: HashSet<AppId>,
    /// Cache channels with a recent event, and the time until which no other is queued.
    misses: HashMap<Topic, Instant>,
    /// The last time at which expired entries of `misses` were removed.
    cleaned: Option<Instant>,
    /// The last used sequence number.
    sequence: u64,
}

#[derive(Default)]
struct Queue {
    unread: VecDeque<WebhookEvent>,
    unread_bytes: usize,
    /// Events that were dropped since the last report.
    dropped: u64,
    /// Events that were read, by sequence.
    unacknowledged: BTreeMap<u64, WebhookEvent>,
}

/// A held event.
#[derive(Clone, Debug)]
enum Held {
    Vacated(Topic),
    Removed(Topic, UserId),
    /// Values of one channel are equal, whatever the count is.
    Counted(Topic, u64),
}

impl MemoryQueues {
    /// Creates empty queues for the endpoints of all apps.
    pub fn new(apps: &Apps) -> Arc<Self> {
        let endpoints = |webhooks| Endpoint::labelled(webhooks).into_iter().map(|(label, it)| (label, it.clone()));
        let apps = apps.iter().filter(|app| !app.webhooks.is_empty());
        let apps = apps.map(|app| (app.id.clone(), (app.webhook_kinds(), endpoints(&app.webhooks).collect())));
        Arc::new(Self { apps: apps.collect(), state: Mutex::default(), has_overflowed: AtomicBool::new(false) })
    }

    /// Reports the first subscription of a channel.
    pub(crate) fn occupied(&self, topic: &Topic) {
        self.start(topic, &Held::Vacated(topic.clone()), Occurrence::ChannelOccupied);
    }

    /// Reports that a channel has lost its last subscription.
    pub(crate) fn vacated(&self, topic: &Topic) {
        self.hold_end(topic, WebhookKind::ChannelOccupied, WebhookKind::ChannelVacated, Held::Vacated(topic.clone()));
    }

    /// Reports a new member of a presence channel.
    pub(crate) fn added(&self, topic: &Topic, user_id: &UserId) {
        let held = Held::Removed(topic.clone(), user_id.clone());
        self.start(topic, &held, Occurrence::MemberAdded(user_id.clone()));
    }

    /// Reports a member that has left a presence channel.
    pub(crate) fn removed(&self, topic: &Topic, user_id: &UserId) {
        let held = Held::Removed(topic.clone(), user_id.clone());
        self.hold_end(topic, WebhookKind::MemberAdded, WebhookKind::MemberRemoved, held);
    }

    /// Reports the subscription count of a channel. A count of 0 has no event, because the channel is vacated.
    pub(crate) fn counted(&self, topic: &Topic, count: u64) {
        if !self.kinds_of(&topic.app).has(WebhookKind::SubscriptionCount) {
            return;
        }
        let held = Held::Counted(topic.clone(), count);
        let mut state = self.lock_due();
        if count > COUNT_IMMEDIATE_MAX {
            // A new count replaces the held one and is due at the same time.
            let at = state.release(&held).map_or_else(|| Instant::now() + COUNT_INTERVAL, |(due, _)| due);
            state.hold(held, at);
        } else {
            state.release(&held);
            if count > 0 {
                self.enqueue_now(&mut state, topic, &Occurrence::SubscriptionCount(count));
            }
        }
    }

    /// Reports that a cache channel had no event for a new subscriber.
    pub(crate) fn missed(&self, topic: &Topic) {
        if !self.kinds_of(&topic.app).has(WebhookKind::CacheMiss) {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock_due();
        if state.misses.get(topic).is_some_and(|until| *until > now) {
            return;
        }
        state.misses.insert(topic.clone(), now + CACHE_MISS_INTERVAL);
        self.enqueue_now(&mut state, topic, &Occurrence::CacheMiss);
    }

    /// Queues an event that is not held.
    pub(crate) fn enqueue(&self, topic: &Topic, occurrence: &Occurrence) {
        self.enqueue_now(&mut self.lock_due(), topic, occurrence);
    }

    fn start(&self, topic: &Topic, held: &Held, occurrence: Occurrence) {
        if self.kinds_of(&topic.app).is_empty() {
            return;
        }
        let mut state = self.lock_due();
        if state.release(held).is_none() {
            self.enqueue_now(&mut state, topic, &occurrence);
        }
    }

    /// Holds an event of the kind `end`, even if the endpoints receive only the kind `start`: a return within the hold
    /// must not be reported.
    fn hold_end(&self, topic: &Topic, start: WebhookKind, end: WebhookKind, held: Held) {
        let kinds = self.kinds_of(&topic.app);
        if kinds.has(start) || kinds.has(end) {
            self.lock_due().hold(held, Instant::now() + WEBHOOK_HOLD);
        }
    }

    fn enqueue_now(&self, state: &mut State, topic: &Topic, occurrence: &Occurrence) {
        let Some((_, endpoints)) = self.apps.get(&topic.app) else { return };
        state.sequence += 1;
        let at_ms = unix_us() / 1000;
        let stream_id = StreamId::new(format!("{at_ms}-{}", state.sequence));
        let event = WebhookEvent {
            id: EventId::new(&topic.app, PARTITION, &stream_id),
            stream_id,
            at_ms,
            replay_to: None,
            channel: topic.channel.clone(),
            occurrence: occurrence.clone(),
        };
        for (label, _) in endpoints.iter().filter(|(_, endpoint)| event.is_for(endpoint)) {
            let queue = state.queues.entry((topic.app.clone(), label.clone())).or_default();
            let dropped = queue.push(event.clone());
            if dropped && !self.has_overflowed.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    app.id = %topic.app,
                    endpoint = %label,
                    events = QUEUE_MAX,
                    bytes = QUEUE_BYTES_MAX,
                    "the queue of a webhook endpoint is full; dropping its oldest events (further drops are only \
                     counted)"
                );
            }
        }
        state.ready_apps.insert(topic.app.clone());
    }

    fn kinds_of(&self, app: &AppId) -> WebhookKinds {
        self.apps.get(app).map(|(kinds, _)| *kinds).unwrap_or_default()
    }

    fn enqueue_due(&self, state: &mut State, now: Instant) {
        while let Some(first) = state.due.first_entry().filter(|first| first.key().0 <= now) {
            let held = first.remove();
            state.holds.remove(&held);
            match held {
                Held::Vacated(topic) => self.enqueue_now(state, &topic, &Occurrence::ChannelVacated),
                Held::Removed(topic, user_id) => self.enqueue_now(state, &topic, &Occurrence::MemberRemoved(user_id)),
                Held::Counted(topic, count) => self.enqueue_now(state, &topic, &Occurrence::SubscriptionCount(count)),
            }
        }
    }

    /// Locks the state and queues the events that are due. A return cannot cancel these any more.
    fn lock_due(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        self.enqueue_due(&mut state, Instant::now());
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Queues for MemoryQueues {
    fn tick(&self) -> BoxFuture<'_, Result<Vec<(u32, AppId)>, QueueError>> {
        let mut state = self.lock_due();
        let now = Instant::now();
        if state.cleaned.is_none_or(|cleaned| now.duration_since(cleaned) > CACHE_MISS_INTERVAL) {
            state.cleaned = Some(now);
            state.misses.retain(|_, until| *until > now);
        }
        let ready_apps = state.ready_apps.drain().map(|app| (PARTITION, app)).collect();
        Box::pin(ready(Ok(ready_apps)))
    }

    fn leads(&self, _: u32) -> bool {
        true
    }

    fn read<'a>(
        &'a self,
        queue: &'a QueueId,
        after: Option<&'a StreamId>,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Batch, QueueError>> {
        let mut state = self.lock();
        let queue = state.queues.get_mut(&(queue.app.clone(), queue.endpoint.clone()));
        Box::pin(ready(Ok(queue.map(|queue| queue.read(after, events_max)).unwrap_or_default())))
    }

    fn acknowledge<'a>(
        &'a self,
        queue: &'a QueueId,
        stream_ids: &'a [StreamId],
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        if let Some(queue) = self.lock().queues.get_mut(&(queue.app.clone(), queue.endpoint.clone())) {
            for stream_id in stream_ids {
                queue.unacknowledged.remove(&sequence_of(stream_id));
            }
        }
        Box::pin(ready(Ok(())))
    }

    fn add_dead_letter<'a>(
        &'a self,
        queue: &'a QueueId,
        failed: &'a FailedDelivery,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        // Dead letters exist only in Redis. The dispatcher logs the failed delivery.
        self.acknowledge(queue, std::slice::from_ref(&failed.event.stream_id))
    }

    fn backlog<'a>(
        &'a self,
        _: u32,
        app: &'a AppId,
        endpoints: &'a [Label],
    ) -> BoxFuture<'a, Result<Backlogs, QueueError>> {
        let mut state = self.lock();
        let mut backlogs = Backlogs::default();
        for label in endpoints {
            let Some(queue) = state.queues.get_mut(&(app.clone(), label.clone())) else { continue };
            backlogs.dropped += std::mem::take(&mut queue.dropped);
            backlogs.by_endpoint.push((label.clone(), queue.backlog()));
        }
        Box::pin(ready(Ok(backlogs)))
    }

    fn expire_holds(&self) {
        let mut state = self.lock();
        let last = state.due.last_key_value().map(|((due, _), _)| *due);
        self.enqueue_due(&mut state, last.unwrap_or_else(Instant::now));
    }
}

impl State {
    fn hold(&mut self, held: Held, due: Instant) {
        self.release(&held);
        self.sequence += 1;
        self.due.insert((due, self.sequence), held.clone());
        self.holds.insert(held, (due, self.sequence));
    }

    fn release(&mut self, held: &Held) -> Option<(Instant, u64)> {
        let key = self.holds.remove(held)?;
        self.due.remove(&key);
        Some(key)
    }
}

impl Queue {
    /// Appends an event. Returns whether older events were dropped.
    fn push(&mut self, event: WebhookEvent) -> bool {
        self.unread_bytes += event.bytes();
        self.unread.push_back(event);
        let dropped = self.dropped;
        while self.unread.len() > QUEUE_MAX || (self.unread_bytes > QUEUE_BYTES_MAX && self.unread.len() > 1) {
            if let Some(oldest) = self.unread.pop_front() {
                self.unread_bytes -= oldest.bytes();
                self.dropped += 1;
            }
        }
        self.dropped > dropped
    }

    fn read(&mut self, after: Option<&StreamId>, events_max: usize) -> Batch {
        let first = after.map_or(0, |stream_id| sequence_of(stream_id) + 1);
        let mut events: Vec<WebhookEvent> =
            self.unacknowledged.range(first..).map(|(_, event)| event.clone()).take(events_max).collect();
        if events.is_empty() {
            events = self.unread.drain(..events_max.min(self.unread.len())).collect();
            self.unread_bytes -= events.iter().map(WebhookEvent::bytes).sum::<usize>();
            self.unacknowledged.extend(events.iter().map(|event| (sequence_of(&event.stream_id), event.clone())));
        }
        Batch { last: events.last().map(|event| event.stream_id.clone()), events }
    }

    fn backlog(&self) -> Backlog {
        let read = self.unacknowledged.first_key_value().map(|(_, event)| event.at_ms);
        let queued = self.unread.len() + self.unacknowledged.len();
        Backlog {
            queued: u64::try_from(queued).unwrap_or(u64::MAX),
            oldest_ms: read.or_else(|| self.unread.front().map(|event| event.at_ms)),
        }
    }
}

/// Returns the sequence number in the stream id of an event.
fn sequence_of(stream_id: &StreamId) -> u64 {
    stream_id.as_str().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Vacated(a), Self::Vacated(b)) | (Self::Counted(a, _), Self::Counted(b, _)) => a == b,
            (Self::Removed(a, a_user), Self::Removed(b, b_user)) => a == b && a_user == b_user,
            _ => false,
        }
    }
}

impl Eq for Held {}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Vacated(topic) | Self::Counted(topic, _) => topic.hash(state),
            Self::Removed(topic, user_id) => {
                topic.hash(state);
                user_id.hash(state);
            }
        }
    }
}
