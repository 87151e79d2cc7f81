//! The queues of a single process: what waits in them is lost when the process crashes.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::future::{BoxFuture, ready};

use super::event::{EventId, Occurrence, StreamId, WebhookEvent};
use super::queues::{Backlog, Backlogs, Batch, FailedDelivery, QueueError, QueueId, Queues};
use crate::app::{AppId, Apps, Endpoint, Label, WebhookKind, WebhookKinds};
use crate::cluster::envelope::{Topic, unix_us};
use crate::limits::{CACHE_MISS_INTERVAL, COUNT_IMMEDIATE_MAX, COUNT_INTERVAL, WEBHOOK_HOLD};
use crate::protocol::UserId;

/// Entries that wait for one endpoint, and their bytes, at most; the oldest are dropped first.
const QUEUE_MAX: usize = 100_000;
const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The one partition.
const PARTITION: u32 = 0;

/// What waits in memory, and what is held for a return.
pub struct MemoryQueues {
    apps: HashMap<AppId, (WebhookKinds, Vec<(Label, Endpoint)>)>,
    state: Mutex<State>,
    has_overflowed: AtomicBool,
}

#[derive(Default)]
struct State {
    queues: HashMap<(AppId, Label), Queue>,
    /// What is told when its time comes, by that time and in the order of holding.
    due: BTreeMap<(Instant, u64), Held>,
    holds: HashMap<Held, (Instant, u64)>,
    news: HashSet<AppId>,
    /// Cache channels that were told of as empty, and until when that need not be repeated.
    missed: HashMap<Topic, Instant>,
    /// When those were last looked through.
    swept: Option<Instant>,
    /// Places given out.
    sequence: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<WebhookEvent>,
    waiting_bytes: usize,
    /// Entries that were dropped since that was last reported.
    dropped: u64,
    /// Those that were read and are not done with, by their number.
    unfinished: BTreeMap<u64, WebhookEvent>,
}

/// Something that is not told yet.
#[derive(Clone, Debug)]
enum Held {
    Vacated(Topic),
    Removed(Topic, UserId),
    /// With the count to tell, which does not tell it from another.
    Counted(Topic, u64),
}

impl MemoryQueues {
    /// Empty queues for what the endpoints of `apps` want.
    pub fn new(apps: &Apps) -> Arc<Self> {
        let endpoints = |webhooks| Endpoint::labelled(webhooks).into_iter().map(|(label, it)| (label, it.clone()));
        let apps = apps.iter().filter(|app| !app.webhooks.is_empty());
        let apps = apps.map(|app| (app.id.clone(), (app.webhook_kinds(), endpoints(&app.webhooks).collect())));
        Arc::new(Self { apps: apps.collect(), state: Mutex::default(), has_overflowed: AtomicBool::new(false) })
    }

    /// A channel has its first subscriber.
    pub(crate) fn occupied(&self, topic: &Topic) {
        self.began(topic, &Held::Vacated(topic.clone()), Occurrence::ChannelOccupied);
    }

    /// A channel has lost its last subscriber.
    pub(crate) fn vacated(&self, topic: &Topic) {
        self.ended(topic, WebhookKind::ChannelOccupied, WebhookKind::ChannelVacated, Held::Vacated(topic.clone()));
    }

    /// A presence channel has a user more.
    pub(crate) fn added(&self, topic: &Topic, user_id: &UserId) {
        let held = Held::Removed(topic.clone(), user_id.clone());
        self.began(topic, &held, Occurrence::MemberAdded(user_id.clone()));
    }

    /// A presence channel has a user less.
    pub(crate) fn removed(&self, topic: &Topic, user_id: &UserId) {
        let held = Held::Removed(topic.clone(), user_id.clone());
        self.ended(topic, WebhookKind::MemberAdded, WebhookKind::MemberRemoved, held);
    }

    /// A channel has another count. That it has none is told by its end.
    pub(crate) fn counted(&self, topic: &Topic, count: u64) {
        if !self.wanted(&topic.app).has(WebhookKind::SubscriptionCount) {
            return;
        }
        let held = Held::Counted(topic.clone(), count);
        let mut state = self.lock_due();
        if count > COUNT_IMMEDIATE_MAX {
            // The newest count, at the time of the first.
            let at = state.release(&held).map_or_else(|| Instant::now() + COUNT_INTERVAL, |(due, _)| due);
            state.hold(held, at);
        } else {
            state.release(&held);
            if count > 0 {
                self.enqueue_now(&mut state, topic, &Occurrence::SubscriptionCount(count));
            }
        }
    }

    /// A cache channel has nothing for a subscriber.
    pub(crate) fn missed(&self, topic: &Topic) {
        if !self.wanted(&topic.app).has(WebhookKind::CacheMiss) {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock_due();
        if state.missed.get(topic).is_some_and(|until| *until > now) {
            return;
        }
        state.missed.insert(topic.clone(), now + CACHE_MISS_INTERVAL);
        self.enqueue_now(&mut state, topic, &Occurrence::CacheMiss);
    }

    /// Something happened that nothing can undo.
    pub(crate) fn enqueue(&self, topic: &Topic, occurrence: &Occurrence) {
        self.enqueue_now(&mut self.lock_due(), topic, occurrence);
    }

    fn began(&self, topic: &Topic, held: &Held, occurrence: Occurrence) {
        if self.wanted(&topic.app).is_empty() {
            return;
        }
        let mut state = self.lock_due();
        if state.release(held).is_none() {
            self.enqueue_now(&mut state, topic, &occurrence);
        }
    }

    /// Held also where only the beginning is wanted: a return must not be told.
    fn ended(&self, topic: &Topic, beginning: WebhookKind, ending: WebhookKind, held: Held) {
        let wanted = self.wanted(&topic.app);
        if wanted.has(beginning) || wanted.has(ending) {
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
                    app = %topic.app,
                    endpoint = %label,
                    events = QUEUE_MAX,
                    bytes = QUEUE_BYTES_MAX,
                    "the queue of a webhook endpoint is full; dropping the oldest events, further ones are only counted"
                );
            }
        }
        state.news.insert(topic.app.clone());
    }

    fn wanted(&self, app: &AppId) -> WebhookKinds {
        self.apps.get(app).map(|(wanted, _)| *wanted).unwrap_or_default()
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

    /// What is due is told first: an end whose time is over is not cancelled any more.
    fn lock_due(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        self.enqueue_due(&mut state, Instant::now());
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves collections that are whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues for MemoryQueues {
    fn tick(&self) -> BoxFuture<'_, Result<Vec<(u32, AppId)>, QueueError>> {
        let mut state = self.lock_due();
        let now = Instant::now();
        if state.swept.is_none_or(|swept| now.duration_since(swept) > CACHE_MISS_INTERVAL) {
            state.swept = Some(now);
            state.missed.retain(|_, until| *until > now);
        }
        let news = state.news.drain().map(|app| (PARTITION, app)).collect();
        Box::pin(ready(Ok(news)))
    }

    fn leads(&self, _: u32) -> bool {
        true
    }

    fn read<'a>(
        &'a self,
        queue: &'a QueueId,
        after: Option<&'a StreamId>,
        most: usize,
    ) -> BoxFuture<'a, Result<Batch, QueueError>> {
        let mut state = self.lock();
        let queue = state.queues.get_mut(&(queue.app.clone(), queue.endpoint.clone()));
        Box::pin(ready(Ok(queue.map(|queue| queue.read(after, most)).unwrap_or_default())))
    }

    fn acknowledge<'a>(
        &'a self,
        queue: &'a QueueId,
        stream_ids: &'a [StreamId],
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        if let Some(queue) = self.lock().queues.get_mut(&(queue.app.clone(), queue.endpoint.clone())) {
            for stream_id in stream_ids {
                queue.unfinished.remove(&number(stream_id));
            }
        }
        Box::pin(ready(Ok(())))
    }

    fn add_dead_letter<'a>(
        &'a self,
        queue: &'a QueueId,
        letter: &'a FailedDelivery,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        // Nothing keeps it here; the sender logs what it gives up.
        self.acknowledge(queue, std::slice::from_ref(&letter.event.stream_id))
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
    /// Appends an entry. Returns whether others were dropped for it.
    fn push(&mut self, event: WebhookEvent) -> bool {
        self.waiting_bytes += event.bytes();
        self.waiting.push_back(event);
        let dropped = self.dropped;
        while self.waiting.len() > QUEUE_MAX || (self.waiting_bytes > QUEUE_BYTES_MAX && self.waiting.len() > 1) {
            if let Some(oldest) = self.waiting.pop_front() {
                self.waiting_bytes -= oldest.bytes();
                self.dropped += 1;
            }
        }
        self.dropped > dropped
    }

    fn read(&mut self, after: Option<&StreamId>, most: usize) -> Batch {
        let begun = after.map_or(0, |stream_id| number(stream_id) + 1);
        let mut events: Vec<WebhookEvent> =
            self.unfinished.range(begun..).map(|(_, event)| event.clone()).take(most).collect();
        if events.is_empty() {
            events = self.waiting.drain(..most.min(self.waiting.len())).collect();
            self.waiting_bytes -= events.iter().map(WebhookEvent::bytes).sum::<usize>();
            self.unfinished.extend(events.iter().map(|event| (number(&event.stream_id), event.clone())));
        }
        Batch { last: events.last().map(|event| event.stream_id.clone()), events }
    }

    fn backlog(&self) -> Backlog {
        let read = self.unfinished.first_key_value().map(|(_, event)| event.at_ms);
        let queued = self.waiting.len() + self.unfinished.len();
        Backlog {
            queued: u64::try_from(queued).unwrap_or(u64::MAX),
            oldest_ms: read.or_else(|| self.waiting.front().map(|event| event.at_ms)),
        }
    }
}

/// The number of a place of these queues.
fn number(stream_id: &StreamId) -> u64 {
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
